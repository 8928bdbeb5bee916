"""The ASGI application: finds the route, takes the request through what every call goes through, sends the answer.

    exchange -> traffic -> interceptors (measure, log, gate, caller) -> route -> answer

These are the ones of gRPC; only how an error is told is HTTP's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ...clock import Clock
from ...config import RequestLimits
from ...errors import DeadlineExceeded
from ...rpc.interceptors import Context, Handler, Interceptor
from ...rpc.traffic import Traffic
from ...rpc.wire import Unreadable
from ...security.access import Access
from .answers import Answer
from .body import BodyReader
from .cors import Cors
from .errors import PLAIN, UPLOAD_TIMED_OUT, failed
from .exchange import ABORT, Exchange, Reader, Receive, Scope, Send
from .routes import Asked, Route, RouteTable

PIECE_BYTES = 1 << 18
"""Of an answer, at once. After each there must be room for the next within the time that a request has to arrive."""


class HttpApp:
    """Serves routes; an ASGI application without a lifespan."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        interceptors: Sequence[Interceptor],
        traffic: Traffic,
        limits: RequestLimits,
        clock: Clock,
        cors: Cors,
        access: Access,
        send_timeout_s: float,
    ) -> None:
        """The first interceptor is the outermost. ``traffic`` is that of the gRPC server in the same process."""
        self._access = access
        self.table = RouteTable(routes)
        self._traffic = traffic
        self._clock = clock
        self._cors = cors
        self._send_timeout_s = send_timeout_s
        self._served: dict[int, tuple[Handler, Reader]] = {}
        for route in self.table.routes:
            handler: Handler = cast(Handler, _innermost(route))
            for interceptor in reversed(interceptors if route.guarded else ()):
                handler = interceptor.wrap(route.name, handler)
            self._served[id(route)] = (handler, _reader(route, limits))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. A caller that leaves has its task cancelled, which ends here."""
        try:
            answer, exchange = await self._answer(scope, receive)
            try:
                await self._send(answer, exchange, send)
            finally:
                exchange.end()
        except asyncio.CancelledError:
            return

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Answer, Exchange]:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            return self._options(path), Exchange(scope, receive, self._clock, _no_body)
        try:
            route, params = self.table.find(method, path)
        except Exception as error:
            return failed(path, error, PLAIN), Exchange(scope, receive, self._clock, _no_body)
        handler, reader = self._served[id(route)]
        exchange = Exchange(scope, receive, self._clock, reader)
        try:
            return await self._served_by(route, handler, exchange, params), exchange
        except BaseException:
            exchange.end()
            raise

    async def _served_by(self, route: Route, handler: Handler, exchange: Exchange, params: Mapping[str, str]) -> Answer:
        asked = Asked[Any](exchange, params, route.family)
        context = cast(Context, exchange)  # the part of it that is used
        try:
            # Before the body is read. What is refused is counted like all else.
            refusal = self._access.refusal(context.invocation_metadata(), route.need)
            if refusal is not None:
                asked.received = Unreadable(refusal)
            if route.guarded and refusal is None:
                asked.received = await self._traffic.receive(context)
            elif route.guarded:
                self._traffic.enter(context)
            answer = cast(Answer, await handler(cast(Any, asked), context))
        except BaseException as error:
            late = isinstance(asked.received, Unreadable) and isinstance(error, DeadlineExceeded)
            return failed(route.name, error, asked.family, UPLOAD_TIMED_OUT if late else None)
        if route.guarded:
            self._traffic.note_answer(context, answer.body)
        return answer

    async def _send(self, answer: Answer, exchange: Exchange, send: Send) -> None:
        headers = [
            (b"content-type", answer.media_type.encode("latin-1")),
            (b"content-length", b"%d" % len(answer.body)),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers),
            *self._cors.headers(exchange.headers),
        ]
        if answer.status == 204:
            headers = headers[2:]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        try:
            # There may be no room even for the beginning, where earlier answers are not read.
            async with asyncio.timeout(self._send_timeout_s):
                await send(start)
            await self._send_pieces(answer.body, send)
        except TimeoutError:  # it is not read, and the connection would wait for that
            exchange.scope.get(ABORT, lambda: None)()

    async def _send_pieces(self, body: bytes, send: Send) -> None:
        if len(body) <= PIECE_BYTES:
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": body})
            return
        view = memoryview(body)
        for begin in range(0, len(body), PIECE_BYTES):
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": view[begin : begin + PIECE_BYTES], "more_body": True})
        # Sent only when there is room: until then its bytes count as on their way.
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": b""})

    def _options(self, path: str) -> Answer:
        methods = self.table.methods("/" if path == "*" else path)
        return Answer(status=204, headers=(("allow", methods or "OPTIONS"), *self._cors.preflight(methods)))


def _innermost(route: Route) -> Any:
    async def handler(asked: Asked[Any], context: object) -> Answer:
        await asked.read()
        return await route.call(asked)

    return handler


def _reader(route: Route, limits: RequestLimits) -> Reader:
    return _no_body if route.reader is None else BodyReader(route.reader, limits)


async def _no_body(exchange: Exchange) -> object:
    return b""  # None would be a call without a message
