"""Servers for tests: in this process, over real packages or a fake runtime, or as the process that people start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc
import psutil

from pairwire.server import logs
from pairwire.server.app import Application, EngineOpener
from pairwire.server.config import DrainConfig, ListenConfig, RequestLimits, ServerConfig
from pairwire.server.engine import Clock, Engine, EngineConfig, Model, Observer
from pairwire.v1.embedding_pb2_grpc import EmbeddingServiceStub
from pairwire.v1.model_pb2_grpc import ModelServiceStub
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests import processes

ENGINE = EngineConfig(warmup_s=0.01)
"""Measuring what batches cost is not what these tests are about."""

PATIENCE_S = 120.0
"""Nothing takes this long on a busy machine. What waits in vain fails with a sentence, before pytest ends it."""

_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Served:
    """A running server and a channel to it."""

    application: Application
    channel: grpc.aio.Channel

    @property
    def scoring(self) -> ScoringServiceStub:
        """Score and Rerank."""
        return ScoringServiceStub(self.channel)

    @property
    def embedding(self) -> EmbeddingServiceStub:
        """Embed and EmbedSparse."""
        return EmbeddingServiceStub(self.channel)

    @property
    def models(self) -> ModelServiceStub:
        """ListModels and GetModel."""
        return ModelServiceStub(self.channel)


def config(
    *directories: Path,
    limits: RequestLimits | None = None,
    engine: EngineConfig = ENGINE,
    metrics_port: int = -1,
    http_port: int = -1,
    drain_timeout_s: float = 30.0,
) -> ServerConfig:
    """A configuration on any free port."""
    return ServerConfig(
        models=directories or (Path("never-read"),),
        listen=ListenConfig(port=0, metrics_port=metrics_port, http_port=http_port),
        limits=limits or RequestLimits(),
        shutdown=DrainConfig(drain_timeout_s=drain_timeout_s),
        engine=engine,
    )


def opener(models: Callable[[], Sequence[Model]]) -> EngineOpener:
    """What an application calls in place of ``Engine.open``: an engine over models of the test's own making."""

    async def open_engine(
        *packages: Path | str,
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> Engine:
        return Engine(models(), config=config, clock=clock, observer=observer, on_fatal=on_fatal)

    return open_engine


@contextlib.asynccontextmanager
async def serve(
    *directories: Path, settings: ServerConfig | None = None, models: Callable[[], Sequence[Model]] | None = None
) -> AsyncIterator[Served]:
    """Serves packages, or models of the test's own making, until the block ends."""
    settings = settings or config(*directories)
    application = Application(settings) if models is None else Application(settings, open_engine=opener(models))
    await application.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        await application.load()
        try:
            yield Served(application, channel)
        finally:
            await application.abort()


async def eventually(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds: for what another thread or the peer does soon and tells nobody."""
    for _ in range(int(PATIENCE_S / _LOOK_S)):
        if condition():
            return
        await asyncio.sleep(_LOOK_S)
    raise AssertionError("it never came true")


class Process:
    """A ``pairwire serve`` process, from its first line on stdout to its exit code."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, metrics_port: int, http_port: int = 0) -> None:
        self.process = process
        self.port = port
        self.metrics_port = metrics_port
        self.http_port = http_port
        """0 where HTTP is off."""

    def channel(self) -> grpc.aio.Channel:
        """A channel with a connection of its own."""
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1)])

    async def metric(self, name: str) -> float:
        """The value of a series, with its labels where it has some: ``name{label="value"}``."""
        text = await asyncio.to_thread(_fetch, self.metrics_port)
        (value,) = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def children(self) -> list[int]:
        """The process ids of its children, in the order in which they were started."""
        return sorted(child.pid for child in psutil.Process(self.process.pid).children())

    async def wait_for_metric(self, name: str, condition: Callable[[float], bool]) -> float:
        """The first value of a series that meets the condition."""
        value = await self.metric(name)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition(value):
                    await asyncio.sleep(0.02)
                    value = await self.metric(name)
        except TimeoutError:
            raise AssertionError(f"{name} stays at {value}") from None
        return value

    def signal(self, number: signal.Signals) -> None:
        """Sends a real signal."""
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Waits for the end."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


COMMAND = (*processes.MAIN, "serve")

_SERVING = re.compile(
    r"pairwire: serving on 127\.0\.0\.1:(\d+), metrics on 127\.0\.0\.1:(\d+)(?:, HTTP on 127\.0\.0\.1:(\d+))?"
)


def logged(records: Iterable[logging.LogRecord], level: int = logging.WARNING) -> list[logging.LogRecord]:
    """What the log of a server shows of records, from ``level`` on: not what gRPC says of callers that have left."""
    shown = logs.Quiet()
    return [record for record in records if record.levelno >= level and shown.filter(record)]


@contextlib.asynccontextmanager
async def start(*arguments: Path | str, log: BinaryIO | None = None) -> AsyncIterator[Process]:
    """Starts the process on free ports; it is killed at the end of the block where it still runs.

    It drains for as long as a test waits, unless the arguments say otherwise: a busy machine may take longer for the
    work of a test than the 30 seconds of the default.
    ``log`` gets what it writes to stderr; else pytest does, and shows it where a test fails.
    """
    drain, ports = ("--drain-timeout-s", str(PATIENCE_S)), ("--port", "0", "--metrics-port", "0")
    command = (*COMMAND, *drain, *map(str, arguments), *ports, "--warmup-s", "0.01")
    async with processes.started_here(command, stdout=asyncio.subprocess.PIPE, stderr=log) as process:
        assert process.stdout is not None
        async for line in process.stdout:
            if bound := _SERVING.match(line.decode()):
                yield Process(process, int(bound[1]), int(bound[2]), int(bound[3] or 0))
                break
        else:
            raise AssertionError("the server did not start")


def _fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text
