"""What a server bears: ``python -m benchmarks.harm --package models/demo``, a table for each kind of harm.

uploads   requests of 60 MB that stall, each on a connection of its own: memory before, at most, and afterwards
readers   clients that do not read their answers (documents that are echoed): the same
drains    SIGTERM while callers send one request after the other: what they saw, and the exit code, N times

While uploads stall and answers are not read, another caller sends a pair now and then; ``others_*`` is what it sees.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import psutil

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub

from .report import print_machine, print_table, write_json
from .serving import serving, started

if TYPE_CHECKING:
    from pairwire.v1.scoring_pb2_grpc import ScoringServiceAsyncStub

MIB = 1 << 20
_RERANK = "/pairwire.v1.ScoringService/Rerank"
MEMORY = ("harm", "connections", "before_mib", "most_mib", "after_mib", "codes", "others", "others_p99_ms")
DRAINS = ("harm", "drain", "codes", "lost", "exit_code")
_LOOK_S = 0.05
_SETTLE_S = 12.0
"""After which memory that was freed should be back with the system."""

Row = dict[str, object]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    args = _arguments(arguments)
    print_machine()
    rows: list[Row] = []
    for kind in [kind for kind in ("uploads", "readers") if kind in args.kind]:
        options = ["--max-message-bytes", str(64 * MIB), "--max-text-bytes", str(16 * MIB), "--log-level", "error"]
        with serving([args.package], options) as server:
            rows.append(asyncio.run(_memory(args, kind, server.address, psutil.Process(server.pid))))
    if rows:
        print_table(rows, MEMORY)
    if "drains" in args.kind:
        drains = [_drain(args, number) for number in range(args.drains)]
        print_table(drains, DRAINS)
        rows += drains
    write_json(args.json, rows)


async def _memory(args: argparse.Namespace, kind: str, address: str, process: psutil.Process) -> Row:
    host, _, port = address.rpartition(":")
    seen: list[int] = []
    others: list[tuple[str, float]] = []
    harm = _stalled if kind == "uploads" else _unread
    # In a process of its own: what is measured here must not wait for what is done there.
    context = multiprocessing.get_context("spawn")
    async with grpc.aio.insecure_channel(address) as channel:
        scoring = ScoringServiceStub(channel)
        await scoring.Rerank(scoring_pb2.RerankRequest(query="q", documents=["a"]))
        before = process.memory_info().rss
        watching = asyncio.create_task(_watch(process, seen, scoring, others))
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            doing = asyncio.get_running_loop().run_in_executor(pool, harm, args, host, int(port))
            codes = await doing
        watching.cancel()
        await asyncio.sleep(args.settle)
    return {
        "harm": kind,
        "connections": args.connections,
        "before_mib": before // MIB,
        "most_mib": max(seen) // MIB,
        "after_mib": process.memory_info().rss // MIB,
        "codes": _told(codes),
        "others": _told(Counter(code for code, _ in others)),
        "others_p99_ms": 1e3 * float(np.percentile([seconds for _, seconds in others], 99)),
    }


def _stalled(args: argparse.Namespace, host: str, port: int) -> Counter[str]:
    """All of a request but its last megabytes is sent; then nothing more."""
    size = int(args.megabytes * 1e6)
    request = scoring_pb2.RerankRequest(query="q", documents=["x" * (size // 8)] * 8)
    return asyncio.run(_calls(args, host, port, request, upwards=int(0.9 * size)))


def _unread(args: argparse.Namespace, host: str, port: int) -> Counter[str]:
    """The documents are asked back, and of the answer nothing is read but what is needed to get so far."""
    request = scoring_pb2.RerankRequest(query="q", documents=["y" * 12_000] * 250, return_documents=True)
    return asyncio.run(_calls(args, host, port, request, downwards=100_000))


async def _calls(
    args: argparse.Namespace, host: str, port: int, request: scoring_pb2.RerankRequest, **most: int
) -> Counter[str]:
    codes: Counter[str] = Counter()
    raw = request.SerializeToString()

    async def call() -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        options += [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{through}", options=options) as channel:
            rerank: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_RERANK)
            codes[(await rerank(raw, timeout=args.seconds).code()).name] += 1

    async with _relay(host, port, **most) as through:
        await asyncio.gather(*(call() for _ in range(args.connections)))
    return codes


@asynccontextmanager
async def _relay(host: str, port: int, *, upwards: int = 1 << 60, downwards: int = 1 << 60) -> AsyncIterator[int]:
    """A port that passes on to another, in each direction only so many bytes of a connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        with contextlib.suppress(OSError):
            while most > 0 and (data := await reader.read(min(most, 1 << 16))):
                most -= len(data)
                writer.write(data)
                await writer.drain()
            if most > 0:
                writer.close()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(host, port)
        for work in (pump(reader, there, upwards), pump(there_reader, writer, downwards)):
            tasks.add(asyncio.create_task(work))

    server = await asyncio.start_server(passed_on, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()


async def _watch(
    process: psutil.Process,
    seen: list[int],
    scoring: ScoringServiceAsyncStub,
    others: list[tuple[str, float]],
) -> None:
    """Memory, and what a small call sees, until cancelled."""
    request = scoring_pb2.RerankRequest(query="q", documents=["a"])
    while True:
        seen.append(process.memory_info().rss)
        began = time.monotonic()
        call = scoring.Rerank(request, timeout=30)
        code = await call.code()
        others.append((code.name, time.monotonic() - began))
        await asyncio.sleep(_LOOK_S)


def _drain(args: argparse.Namespace, number: int) -> Row:
    """One server's end, with callers at work."""
    server, process = started([args.package], ["--log-level", "error"])
    codes = asyncio.run(_until_gone(args, server.address, lambda: process.send_signal(signal.SIGTERM)))
    try:
        code = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    assert process.stdout is not None
    process.stdout.close()
    lost = sum(count for name, count in codes.items() if name not in ("OK", "UNAVAILABLE"))
    return {"harm": "drain", "drain": number, "codes": _told(codes), "lost": lost, "exit_code": code}


async def _until_gone(args: argparse.Namespace, address: str, terminate: Callable[[], None]) -> Counter[str]:
    codes: Counter[str] = Counter()

    async def ask() -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            scoring = ScoringServiceStub(channel)
            for at in range(1 << 30):
                request = scoring_pb2.RerankRequest(query="q", documents=[f"document {at} {each}" for each in range(8)])
                call = scoring.Rerank(request, timeout=60)
                code = (await call.code()).name
                codes[code] += 1
                if code != "OK":
                    return

    callers = [asyncio.create_task(ask()) for _ in range(args.callers)]
    await asyncio.sleep(args.load_seconds)
    terminate()
    await asyncio.gather(*callers)
    return codes


def _told(codes: Counter[str]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("uploads", "readers", "drains")
    parser.add_argument("--package", type=Path, required=True, help="of a cross-encoder")
    parser.add_argument("--kind", nargs="+", choices=kinds, default=kinds, help="which (default all)")
    parser.add_argument("--connections", type=int, default=30, help="uploads, readers: connections (default 30)")
    parser.add_argument("--megabytes", type=float, default=60, help="uploads: size of a request (default 60)")
    parser.add_argument("--seconds", type=float, default=20, help="uploads, readers: until they give up (default 20)")
    parser.add_argument(
        "--settle", type=float, default=_SETTLE_S, help="seconds before memory is read again (default 12)"
    )
    parser.add_argument("--drains", type=int, default=10, help="drains: how many (default 10)")
    parser.add_argument("--callers", type=int, default=16, help="drains: callers (default 16)")
    parser.add_argument("--load-seconds", type=float, default=2, help="drains: of load before SIGTERM (default 2)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
