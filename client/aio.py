"""The asyncio client: a thin skin over requests, codec and results (sync.py is its twin)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.v1 import (
    embedding_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    scoring_pb2_grpc,
)

from . import codec, requests, results
from .channel import channel_arguments, credentials_of, target_of
from .errors import ClientError, DeadlineExceeded, Unavailable, error_of
from .inputs import Activation, EmbedOptions, Encoding, Pair, Priority, ScoreOptions, Truncation, timeout_of
from .options import DEFAULT_ADDRESS, ClientOptions
from .requests import Part
from .results import EmbedResult, Model, ModelDetails, RerankResult, ScoreResult

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

_WATCH_AGAIN_S = 0.1


class AsyncClient:
    """Scores, ranks and embeds on Pairwire servers. Make one in an event loop and keep it: it holds the connections.

    ``addresses`` is one address (``host:port``, ``dns:///name:port``) or several IP addresses with ports, which are
    called in turn. Nothing connects before the first call. Every method raises the errors of `pairwire.client.errors`,
    and takes ``timeout_s``, the seconds that a request may take, retries included: None means the client's own
    (``options.timeout_s``), infinity none at all. An input so large that it is split gets it for each of its requests.

    Raises:
        ValueError: an address without a port, or several that cannot be called in turn.
        OSError: a TLS file cannot be read.
    """

    def __init__(
        self, addresses: str | Sequence[str] = DEFAULT_ADDRESS, *, options: ClientOptions | None = None
    ) -> None:
        self.options = options or ClientOptions()
        self.address = target_of(addresses)
        credentials, arguments = credentials_of(self.options), channel_arguments(self.options)
        if credentials is None:
            self._channel = aio.insecure_channel(self.address, options=arguments)
        else:
            self._channel = aio.secure_channel(self.address, credentials, options=arguments)
        self._scoring = scoring_pb2_grpc.ScoringServiceStub(self._channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def score(
        self,
        pairs: Iterable[Pair],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores each pair of texts; ``.scores`` is float32 [pairs], or [pairs, labels] of a model with several labels.

        All of the input is checked before anything is sent.

        Raises:
            InvalidInput: no pairs, something that is not two texts, or an option out of range.
        """
        options = ScoreOptions(
            model=model, activation=activation, truncation=truncation, max_length=max_length, priority=priority
        )
        parts = list(requests.score_parts(pairs, options, self.options.split))
        return results.merge_scores(await self._collect(self._scoring.Score, parts, codec.score_result, timeout_s))

    async def score_documents(
        self,
        query: str,
        documents: Iterable[str],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> ScoreResult:
        """Scores each document against the query, in input order: ``score`` without sending the query again and again.

        Raises:
            InvalidInput: as ``score``.
        """
        options = ScoreOptions(
            model=model, activation=activation, truncation=truncation, max_length=max_length, priority=priority
        )
        parts = list(requests.score_documents_parts(query, documents, options, self.options.split))
        return results.merge_scores(await self._collect(self._scoring.Score, parts, codec.score_result, timeout_s))

    def score_stream(
        self,
        pairs: Iterable[Pair],
        *,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[ScoreResult]:
        """``score`` for inputs of any size: one result a request, in order, while the iterable is read as needed.

        A wrong pair raises when its turn comes; what came before it has been scored.
        """
        options = ScoreOptions(
            model=model, activation=activation, truncation=truncation, max_length=max_length, priority=priority
        )
        parts = requests.score_parts(pairs, options, self.options.split)
        return self._exchange(self._scoring.Score, parts, codec.score_result, timeout_s)

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        model: str = "",
        activation: Activation | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        timeout_s: float | None = None,
    ) -> RerankResult:
        """The documents by descending score (equal scores by ascending index), at most ``top_k`` of them.

        Raises:
            InvalidInput: no documents, something that is not text, or an option out of range.
            WrongModelKind: the model has several labels, so that there is no one score to sort by.
        """
        options = ScoreOptions(
            model=model, activation=activation, truncation=truncation, max_length=max_length, priority=priority
        )
        parts = list(requests.rerank_parts(query, documents, top_k, options, self.options.split))
        ranked = await self._collect(self._scoring.Rerank, parts, codec.rerank_result, timeout_s)
        return results.merge_ranked(ranked, top_k)

    async def embed(
        self,
        texts: Iterable[str],
        *,
        model: str = "",
        prompt_name: str | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        encoding: Encoding = "float32",
        timeout_s: float | None = None,
    ) -> EmbedResult:
        """Embeds each text; ``.embeddings`` is float32 [texts, dimensions].

        Raises:
            InvalidInput: no texts, something that is not text, an unknown prompt, or an option out of range.
        """
        options = EmbedOptions(
            model=model,
            prompt_name=prompt_name,
            truncation=truncation,
            max_length=max_length,
            priority=priority,
            encoding=encoding,
        )
        parts = list(requests.embed_parts(texts, options, self.options.split))
        vectors = await self._collect(self._embedding.Embed, parts, codec.embed_result, timeout_s)
        return results.merge_embeddings(vectors)

    def embed_stream(
        self,
        texts: Iterable[str],
        *,
        model: str = "",
        prompt_name: str | None = None,
        truncation: Truncation | None = None,
        max_length: int | None = None,
        priority: Priority | None = None,
        encoding: Encoding = "float32",
        timeout_s: float | None = None,
    ) -> AsyncIterator[EmbedResult]:
        """``embed`` for inputs of any size, as ``score_stream``."""
        options = EmbedOptions(
            model=model,
            prompt_name=prompt_name,
            truncation=truncation,
            max_length=max_length,
            priority=priority,
            encoding=encoding,
        )
        parts = requests.embed_parts(texts, options, self.options.split)
        return self._exchange(self._embedding.Embed, parts, codec.embed_result, timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> list[Model]:
        """Every loaded model, by name."""
        answer = await self._ask(self._model.ListModels, model_pb2.ListModelsRequest(), timeout_s)
        return [codec.model(found) for found in answer.models]

    async def model(self, name: str = "", *, timeout_s: float | None = None) -> ModelDetails:
        """One loaded model with its manifest; the name may be empty where exactly one is loaded.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return codec.model_details(
            await self._ask(self._model.GetModel, model_pb2.GetModelRequest(model=name), timeout_s)
        )

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns once a server reports that all its models are warm (grpc.health.v1).

        Raises:
            DeadlineExceeded: none does in time.
            NotSupported: what answers there has no health service.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if await self._watch_health(left_s):
                return
            await asyncio.sleep(min(_WATCH_AGAIN_S, left_s))
        raise DeadlineExceeded(f"{self.address}: no server was ready within {timeout_s:g} s")

    async def close(self) -> None:
        """Closes the connections; calls under way fail with `Cancelled`."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _watch_health(self, timeout_s: float) -> bool:
        """Whether a server became ready while the stream lasted."""
        watch = self._health.Watch(
            health_pb2.HealthCheckRequest(),
            timeout=timeout_s,
            metadata=self.options.metadata,
            wait_for_ready=True,
        )
        try:
            async for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return True
            return False
        except aio.AioRpcError as error:
            found = self._error(error)
            if isinstance(found, DeadlineExceeded | Unavailable):
                return False
            raise found from error
        finally:
            watch.cancel()

    async def _collect(
        self,
        rpc: aio.UnaryUnaryMultiCallable[Q, R],
        parts: Iterable[Part[Q]],
        decode: Callable[[Part[Q], R, float], T],
        timeout_s: float | None,
    ) -> list[T]:
        return [result async for result in self._exchange(rpc, parts, decode, timeout_s)]

    async def _exchange(
        self,
        rpc: aio.UnaryUnaryMultiCallable[Q, R],
        parts: Iterable[Part[Q]],
        decode: Callable[[Part[Q], R, float], T],
        timeout_s: float | None,
    ) -> AsyncIterator[T]:
        """Sends the parts, at most ``split.in_flight`` at once, and decodes their answers in order."""
        timeout = timeout_of(timeout_s, self.options)
        began = time.monotonic()
        waiting: deque[tuple[Part[Q], aio.UnaryUnaryCall[Q, R]]] = deque()

        async def finish() -> T:
            part, call = waiting[0]
            try:
                answer = await call
            except aio.AioRpcError as error:
                raise self._error(error, part.start) from error
            waiting.popleft()  # only now: a cancelled task must cancel this call too
            return decode(part, answer, time.monotonic() - began)

        try:
            for part in parts:
                if len(waiting) == self.options.split.in_flight:
                    yield await finish()
                waiting.append((part, rpc(part.message, timeout=timeout, metadata=self.options.metadata)))
            while waiting:
                yield await finish()
        finally:
            for _, call in waiting:
                call.cancel()

    async def _ask(self, rpc: aio.UnaryUnaryMultiCallable[Q, R], request: Q, timeout_s: float | None) -> R:
        try:
            return await rpc(request, timeout=timeout_of(timeout_s, self.options), metadata=self.options.metadata)
        except aio.AioRpcError as error:
            raise self._error(error) from error

    def _error(self, error: aio.AioRpcError, start: int = 0) -> ClientError:
        trailers = error.trailing_metadata() or ()
        return error_of(error.code(), error.details() or "", trailers, address=self.address, start=start)
