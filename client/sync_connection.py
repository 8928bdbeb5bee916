"""The connection of the blocking client: how requests are sent and failures reported, whatever they are about.

aio_connection.py is its twin.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.v1 import embedding_pb2_grpc, model_pb2_grpc, scoring_pb2_grpc

from .calls import Prepared, Rpc
from .channel import channel_arguments, credentials_of, target_of
from .errors import Cancelled, ClientError, DeadlineExceeded, Unavailable, error_of
from .inputs import timeout_of
from .options import DEFAULT_ADDRESS, ClientOptions
from .proxy import proxy_of
from .requests import Part
from .window import Window

if TYPE_CHECKING:
    from grpc import _CallFuture

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

_WATCH_AGAIN_S = 0.1


class Connection:
    """A channel to one or several servers, and what every call does with it. Thread-safe."""

    def __init__(
        self,
        addresses: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        options: ClientOptions | None = None,
        api_key: str = "",
    ) -> None:
        self.options = options or ClientOptions()
        if api_key:
            self.options = replace(self.options, api_key=api_key)
        self._metadata = self.options.call_metadata()
        self.address = target_of(addresses)
        credentials, arguments = credentials_of(self.options), channel_arguments(self.options, self.address)
        self._proxy = proxy_of(self.address)
        if credentials is None:
            self._channel = grpc.insecure_channel(self.address, options=arguments)
        else:
            self._channel = grpc.secure_channel(self.address, credentials, options=arguments)
        scoring = scoring_pb2_grpc.ScoringServiceStub(self._channel)
        embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._rpcs: Mapping[Rpc, grpc.UnaryUnaryMultiCallable[Any, Any]] = {
            "Score": scoring.Score,
            "Rerank": scoring.Rerank,
            "Classify": scoring.Classify,
            "Embed": embedding.Embed,
            "EmbedSparse": embedding.EmbedSparse,
        }
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns once a server reports that all its models are warm (grpc.health.v1).

        Raises:
            DeadlineExceeded: none does in time.
            NotSupported: what answers there has no health service.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._watch_health(left_s):
                return
            time.sleep(min(_WATCH_AGAIN_S, left_s))
        advice = f"; {self._proxy.advice}" if self._proxy else ""
        raise DeadlineExceeded(f"{self.address}: no server was ready within {timeout_s:g} s{advice}")

    def close(self) -> None:
        """Closes the connections; calls under way fail with `Cancelled`."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _watch_health(self, timeout_s: float) -> bool:
        """Whether a server became ready while the stream lasted."""
        watch = self._health.Watch(
            health_pb2.HealthCheckRequest(),
            timeout=timeout_s,
            metadata=self._metadata,
            wait_for_ready=True,
        )
        try:
            return any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)
        except grpc.RpcError as error:
            found = self._error(error)
            if isinstance(found, DeadlineExceeded | Unavailable):
                return False
            raise found from error
        finally:
            watch.cancel()

    def _run(self, call: Prepared[Q, R, T], timeout_s: float | None) -> T:
        """The whole call as one result. All of the input is checked before anything is sent."""
        checked = replace(call, parts=iter(list(call.parts)))
        return call.merge(list(self._stream(checked, timeout_s)))

    def _stream(self, call: Prepared[Q, R, T], timeout_s: float | None) -> Iterator[T]:
        """Sends the parts, at most ``split.in_flight`` at once, and decodes their answers in order."""
        rpc: grpc.UnaryUnaryMultiCallable[Q, R] = self._rpcs[call.rpc]
        timeout = timeout_of(timeout_s, self.options)
        began = time.monotonic()
        window = Window(self.options.split.in_flight)
        waiting: deque[tuple[Part[Q], _CallFuture[R]]] = deque()

        def finish() -> T:
            part, sent = waiting.popleft()
            try:
                answer = sent.result()
            except grpc.RpcError as error:
                raise self._error(error, part.start) from error
            except grpc.FutureCancelledError as error:
                raise Cancelled(f"{self.address}: the call was cancelled") from error
            window.answered()
            return call.decode(part, answer, time.monotonic() - began)

        try:
            for part in call.parts:
                while len(waiting) >= window.size:
                    yield finish()
                waiting.append((part, rpc.future(part.message, timeout=timeout, metadata=self._metadata)))
            while waiting:
                yield finish()
        finally:
            for _, sent in waiting:
                sent.cancel()

    def _ask(self, rpc: grpc.UnaryUnaryMultiCallable[Q, R], request: Q, timeout_s: float | None) -> R:
        try:
            return rpc(request, timeout=timeout_of(timeout_s, self.options), metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: grpc.RpcError, start: int = 0) -> ClientError:
        trailers = [(entry.key, entry.value) for entry in error.trailing_metadata() or ()]
        return error_of(
            error.code(), error.details() or "", trailers, address=self.address, start=start, proxy=self._proxy
        )
