"""The HTTP port: uvicorn's protocol on sockets of our own, with bounds that it lacks, in the server's event loop."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ...addresses import REASONS, listening_sockets
from ...banner import bracketed
from ...config import ConnectionConfig, ListenConfig
from ...errors import ConfigInvalid
from .exchange import ABORT

logger = logging.getLogger(__name__)

MOST_HEAD_BYTES = 64 << 10
"""Of the first line and the headers of a request together."""
BACKLOG = 2048
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_QUIET = logging.getLogger(f"{__name__}.quiet")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class _Bounds:
    """What connections may take, and whether the server is about to go."""

    def __init__(self, connections: ConnectionConfig, most: int) -> None:
        self.most = most
        self.head_s = connections.upload_timeout_s
        self.age_s = connections.max_connection_age_s
        self.leaving = False
        self.idle: dict[_Connection, None] = {}
        """Connections on which nothing is asked, the one that has been so for longest first."""


class _Connection(HttpToolsProtocol):
    """One connection. A head must arrive in time and be small; who hangs up has its request cancelled."""

    bounds: _Bounds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.logger = _QUIET  # whatever strangers send is no news
        self._serving: asyncio.Task[None] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._since = self.loop.time()
        if len(self.connections) > self.bounds.most:
            oldest = next(iter(self.bounds.idle), None)
            if oldest is None:
                transport.abort()
                return
            oldest.abort()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._stop_awaiting()
        self.bounds.idle.pop(self, None)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._serving is not None:
            self._serving.cancel()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.bounds.idle.pop(self, None)
        self._unset_keepalive_if_required()
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        if self._head_timer is not None:
            data = _without_upgrade(data)
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self._refuse(400, "this is not HTTP/1.1 as this server understands it")
            return
        if self._head_timer is not None and self._head_bytes > MOST_HEAD_BYTES + len(data):
            self._refuse(431, f"the headers exceed {MOST_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]  # of ours

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self.bounds.idle[self] = None

    def on_headers_complete(self) -> None:
        self._stop_awaiting()
        self._head_bytes = 0
        super().on_headers_complete()
        age_s = self.bounds.age_s
        if self.bounds.leaving or (age_s and self.loop.time() - self._since > age_s):
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_bytes = 0

    def timeout_keep_alive_handler(self) -> None:
        self.abort()  # to close would wait for what is not read

    def leave(self, *, idle_too: bool) -> None:
        """The next answer is the last; where nothing is asked, it closes now if ``idle_too``."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif idle_too:
            self.transport.close()

    def abort(self) -> None:
        """Ends it wherever it is."""
        self.bounds.idle.pop(self, None)
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._serving = task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.bounds.head_s, self._give_up)

    def _stop_awaiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _refuse(self, status: int, reason: str) -> None:
        body = b'{"error":"%s"}' % reason.encode()
        head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


class HttpListener:
    """Serves an ASGI application on one port, from ``start`` to ``close``. Belongs to one event loop."""

    def __init__(self, app: AsgiApp, listen: ListenConfig, connections: ConnectionConfig) -> None:
        self._listen = listen
        self._bounds = _Bounds(connections, connections.connection_limit())
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=connections.max_connection_idle_s or 10**9,  # type: ignore[arg-type]  # for call_later
        )
        self.port = 0
        """Where it listens, once it does."""

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._state.connections)

    async def start(self, *, share_port: bool, context: ssl.SSLContext | None = None) -> None:
        """Listens; over TLS where there is a context.

        Raises:
            ConfigInvalid: the port cannot be had.
        """
        host, port = self._listen.host, self._listen.http_port
        self._config.load()
        try:
            sockets = listening_sockets(host, port, share_port=share_port)
        except OSError as error:
            reason = REASONS.get(error.errno or 0, error.strerror or str(error))
            raise ConfigInvalid(
                f"http_port: cannot listen on {bracketed(host)}:{port}: {reason}; choose another --host or --http-port"
            ) from None
        loop = asyncio.get_running_loop()
        self.port = sockets[0].getsockname()[1]
        bounded = type("BoundedConnection", (_Connection,), {"bounds": self._bounds})

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = bounded(self._config, self._state, {}, loop)
            return made

        limit_s = None if context is None else self._bounds.head_s
        for each in sockets:
            self._servers.append(
                await loop.create_server(
                    connection, sock=each, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=limit_s
                )
            )

    def announce_leaving(self) -> None:
        """From now on every answer asks its client to connect anew, which a load balancer will send elsewhere."""
        self._bounds.leaving = True
        for connection in self._open():
            connection.leave(idle_too=False)

    def turn_away(self) -> None:
        """No new connections; those on which nothing is asked are closed."""
        self._bounds.leaving = True
        for server in self._servers:
            server.close()
        for connection in self._open():
            connection.leave(idle_too=True)

    def close(self) -> None:
        """Ends what is still open."""
        self.turn_away()
        for connection in self._open():
            connection.abort()

    def _open(self) -> list[_Connection]:
        return [each for each in self._state.connections if isinstance(each, _Connection)]


def _without_upgrade(data: bytes) -> bytes:
    """A head that offers no other protocol.

    Java's client offers HTTP/2 with its first request and is content with HTTP/1.1; but the parser takes no body then.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or _UPGRADE.search(data, 0, end) is None:
        return data
    return _UPGRADE.sub(b"\r\nx-offer:", data[:end]) + data[end:]
