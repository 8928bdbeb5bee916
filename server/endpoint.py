"""The metrics over HTTP, or HTTPS."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import start_http_server

from .errors import ConfigInvalid, Unauthenticated
from .security.access import API_KEY, AUTHORIZATION, Access
from .security.guard import Guard

logger = logging.getLogger(__name__)

_SILENCE_S = 10.0


class MetricsEndpoint:
    """Shows a registry over HTTP on a port and a thread of its own."""

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str,
        port: int,
        guard: Guard | None = None,
    ) -> None:
        """Listens; where ``guard`` has certificates over TLS, and to those whom it lets in.

        Raises:
            ConfigInvalid: the address is taken or not this machine's.
        """
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigInvalid(
                f"metrics_port: cannot listen on {host}:{port} ({error.strerror}); choose another --metrics-port or -1"
            ) from error
        self._context = None if guard is None else guard.context
        server = self._server
        application = server.get_app()
        assert application is not None
        if guard is not None:
            server.set_app(cast(Any, _for_those_who_may(application, guard.access)))
        # Its own writes tracebacks of what strangers send.
        server.handle_error = _overlook  # type: ignore[method-assign, assignment]
        if self._context is not None:
            server.get_request = self._accept_tls  # type: ignore[method-assign]  # what it is there for
        # Connections that say nothing hold a thread and a file each.
        handler = cast(type, self._server.RequestHandlerClass)
        self._server.RequestHandlerClass = type("Impatient", (handler,), {"timeout": _SILENCE_S})
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _accept_tls(self) -> tuple[socket.socket, Any]:
        """A connection, whose handshake is left to the thread that will serve it, and to that one's patience."""
        assert self._context is not None
        connection, address = self._server.socket.accept()
        secured = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return secured, address


def _overlook(request: object, address: object) -> None:
    logger.debug("a scrape failed", exc_info=True)


def _for_those_who_may(application: Callable[..., Iterable[bytes]], access: Access) -> Callable[..., Iterable[bytes]]:
    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = [
            (name, environ[variable])
            for name, variable in ((AUTHORIZATION, "HTTP_AUTHORIZATION"), (API_KEY, "HTTP_X_API_KEY"))
            if variable in environ
        ]
        error = access.refusal(headers, access.metrics)
        if error is None:
            return application(environ, start_response)
        known = not isinstance(error, Unauthenticated)
        more = [] if known else [("WWW-Authenticate", "Bearer")]
        start_response("403 Forbidden" if known else "401 Unauthorized", [("Content-Type", "text/plain"), *more])
        return [f"{error}\n".encode()]

    return checked
