"""The metrics over HTTP."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import start_http_server

from .errors import ConfigInvalid


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
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
