"""The metrics over HTTP."""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import start_http_server

from .errors import ConfigInvalid

_SILENCE_S = 10.0


class MetricsEndpoint:
    """Shows a registry over HTTP on a port and a thread of its own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        """Listens.

        Raises:
            ConfigInvalid: the address is taken or not this machine's.
        """
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigInvalid(
                f"metrics_port: cannot listen on {host}:{port} ({error.strerror}); choose another --metrics-port or -1"
            ) from error
        # Connections that say nothing hold a thread and a file each.
        handler = cast(type, self._server.RequestHandlerClass)
        self._server.RequestHandlerClass = type("Impatient", (handler,), {"timeout": _SILENCE_S})
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
