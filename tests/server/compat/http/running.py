"""A server with HTTP on a thread of its own, for clients that block, and requests that no client would send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from pairwire.server.app import Application
from pairwire.server.config import ServerConfig
from pairwire.server.engine import Model
from tests.server import serving


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves."""

    application: Application
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        """The HTTP port."""
        port = self.application.http_port
        assert port is not None
        return port

    @property
    def url(self) -> str:
        """Where HTTP is served; without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """The gRPC port of the same server."""
        with grpc.insecure_channel(f"127.0.0.1:{self.application.port}") as channel:
            yield channel

    def client(self) -> httpx.Client:
        """Of this server; to be closed."""
        return httpx.Client(base_url=self.url, timeout=serving.PATIENCE_S)

    def raw(self, sent: bytes) -> bytes:
        """What comes back on a connection of its own until the server closes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=serving.PATIENCE_S) as connection:
            connection.sendall(sent)
            return read_all(connection)

    def on_loop(self, function: Callable[[], None]) -> None:
        """Calls a function on the server's event loop, and waits for it."""
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self.loop.call_soon_threadsafe(call)
        assert done.wait(serving.PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Until the peer closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            received += piece
    return received


@contextlib.contextmanager
def running(
    *directories: Path, settings: ServerConfig | None = None, models: Callable[[], Sequence[Model]] | None = None
) -> Iterator[Running]:
    """Serves packages, or models of the test's own making, until the block ends."""
    settings = settings or serving.config(*directories, http_port=0)
    ready = threading.Event()
    failures: list[BaseException] = []
    found: list[Running] = []
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        application = (
            Application(settings) if models is None else Application(settings, open_engine=serving.opener(models))
        )
        stop.append(asyncio.Event())
        try:
            await application.listen()
            await application.load()
            found.append(Running(application, asyncio.get_running_loop()))
            ready.set()
            await stop[0].wait()
        finally:
            await application.abort()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        assert ready.wait(serving.PATIENCE_S)
        if failures:
            raise failures[0]
        yield found[0]
    finally:
        if found:
            found[0].loop.call_soon_threadsafe(stop[0].set)
        thread.join()
