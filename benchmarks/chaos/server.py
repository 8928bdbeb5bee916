"""The server of a chaos run, and what is done to it while clients ask."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import struct
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub

from .faults import Fault

_SERVING = re.compile(r"serving on 127\.0\.0\.1:(\d+), metrics on 127\.0\.0\.1:(\d+)")
_LONGEST_RECOVERY_S = 90.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a server hold."""

    rss_bytes: int
    threads: int
    files: int


class Server:
    """``pairwire serve --processes 2`` on free ports."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, metrics_port: int) -> None:
        self.process, self.port, self.metrics_port = process, port, metrics_port
        self.events: Counter[str] = Counter()
        self.own_calls = 0
        """Reranks that were begun here, not by a client."""

    @classmethod
    async def start(cls, package: Path, hang_timeout_s: float) -> Server:
        """Starts it. Raises RuntimeError where it does not come up."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pairwire.cli.main", "serve", str(package), "--processes", "2", "--workers", "2"),
            *("--port", "0", "--metrics-port", "0", "--warmup-s", "0.1", "--log-level", "error"),
            *("--hang-timeout-s", str(hang_timeout_s)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what goes wrong is meant to
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if ports := _SERVING.search(line.decode()):
                return cls(process, int(ports[1]), int(ports[2]))
        raise RuntimeError(f"the server did not start: exit code {await process.wait()}")

    async def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        text = await asyncio.to_thread(self._scrape)
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    async def counted(self) -> Counter[str]:
        """Reranks by status code, as the processes count them: what a killed one counted last is missing."""
        text = await asyncio.to_thread(self._scrape)
        return Counter(
            {
                code: int(sum(sample.value for sample in family.samples if sample.labels.get("code") == code))
                for family in text_string_to_metric_families(text)
                if family.name == "pairwire_requests"
                for code in {sample.labels["code"] for sample in family.samples}
            }
        )

    async def recovered(self) -> bool:
        """Waits until both processes serve and nothing waits; False where that does not come."""
        for _ in range(int(_LONGEST_RECOVERY_S / _LOOK_S)):
            if await self.metric("pairwire_processes_ready") == 2 and not await self.metric("pairwire_open_requests"):
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    def children(self) -> list[psutil.Process]:
        """The processes that serve."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda child: child.pid)

    def usage(self) -> Usage:
        """Summed over those."""
        children = self.children()
        return Usage(
            sum(child.memory_info().rss for child in children),
            sum(child.num_threads() for child in children),
            sum(child.num_fds() for child in children),
        )

    async def stop(self) -> int:
        """Drains it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def torment(self, seconds: float, rng: random.Random) -> None:
        """Does one thing after the other to it."""
        deadly = (self._kill, self._drain_one, self._hang)
        acts: list[tuple[str, Callable[[random.Random], Awaitable[None]], float]] = [
            ("kill", self._kill, 2),
            ("drain one", self._drain_one, 2),
            ("pause", self._pause, 2),
            ("hang for good", self._hang, 2),
            ("stalled uploads", self._stall, 2),
            ("idle connections", self._idle, 2),
            ("hang up", self._hang_up, 1),
        ]
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            name, act, _ = rng.choices(acts, [weight for *_, weight in acts])[0]
            if act in deadly and await self.metric("pairwire_processes_ready") < 2:
                await asyncio.sleep(_LOOK_S)
                continue  # one at a time: a process that ends again and again is started ever later
            self.events[name] += 1
            await act(rng)
            await asyncio.sleep(min(max(0.0, end - loop.time()), rng.uniform(0.5, 2)))

    async def _kill(self, rng: random.Random) -> None:
        self._signal(rng, signal.SIGKILL)

    async def _drain_one(self, rng: random.Random) -> None:
        self._signal(rng, signal.SIGTERM)

    async def _hang_up(self, rng: random.Random) -> None:
        self.process.send_signal(signal.SIGHUP)

    async def _pause(self, rng: random.Random) -> None:
        child = rng.choice(self.children() or [None])
        if child is not None:
            child.suspend()
            await asyncio.sleep(rng.uniform(0.1, 1))
            child.resume()

    async def _hang(self, rng: random.Random) -> None:
        """A run that cannot be ended: the process has to."""
        self.own_calls += 1
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = ScoringServiceStub(channel).Rerank(
                scoring_pb2.RerankRequest(query="q", documents=[Fault.STUBBORN.value]), timeout=60
            )
            await call.code()

    async def _stall(self, rng: random.Random) -> None:
        await self._connections(rng.randrange(1, 20), stalled=True)

    async def _idle(self, rng: random.Random) -> None:
        await self._connections(rng.randrange(1, 100), stalled=False)

    async def _connections(self, count: int, *, stalled: bool) -> None:
        opened = []
        for _ in range(count):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:  # nobody listens just now
                continue
            opened.append(writer)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0))
            self.own_calls += stalled
            if stalled:
                writer.write(_frame(1, 4, 1, _HEADERS) + _frame(0, 0, 1, b"\0" + struct.pack("!I", 1 << 20) + b"x"))
        await asyncio.sleep(0.5)
        for writer in opened:
            writer.transport.abort()

    def _signal(self, rng: random.Random, number: signal.Signals) -> None:
        children = self.children()
        if children:
            os.kill(rng.choice(children).pid, number)

    def _scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
        return text


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack("!I", len(body))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + body


_HEADERS = b"".join(
    b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/pairwire.v1.ScoringService/Rerank"),
        (":authority", socket.gethostname()[:100]),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
)
