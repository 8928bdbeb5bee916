"""What callers of a busy server see: mixed requests at a share of capacity against the same requests alone.

``python -m benchmarks.mixed --package models/demo --dataset stsb qnli xquad scifact --data DIR``

Requests of 1 to 32 pairs are drawn from all data sets. Three phases, one server, one client process:

1. each request alone, nothing else in flight: its unloaded latency (median of ``--repeats``)
2. all in turn, ``--concurrency`` in flight: the capacity
3. Poisson arrivals at ``--share`` of the capacity; latency counts from when a call was due

A call's slowdown is its latency in the third phase over the unloaded latency of the same request. The padding share is
that of the third phase, over all computed tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from pairwire.client.proxy import proxy_arguments
from pairwire.v1 import scoring_pb2

from .datasets import Pair, load_pairs
from .protocols import call_of
from .report import print_machine, print_table, write_json
from .serving import serving

SIZES = (1, 1, 1, 1, 2, 4, 8, 16, 32)
"""Pairs of a request, drawn evenly: small ones are the most, large ones bring most of the work."""
COLUMNS = (
    "share",
    "capacity_pairs_per_s",
    "offered_pairs_per_s",
    "calls",
    "errors",
    "unloaded_p50_ms",
    "p50_ms",
    "p99_ms",
    "slowdown_p50",
    "slowdown_p99",
    "p99_over_unloaded_p99",
    "padding",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the client process does. Times in seconds."""

    address: str
    requests: Sequence[bytes]
    sizes: Sequence[int]
    """Pairs of each request."""
    repeats: int
    concurrency: int
    shares: Sequence[float]
    duration_s: float
    seed: int


@dataclass(slots=True)
class Phase:
    """Answers of one open-loop phase, one entry a call."""

    which: list[int] = field(default_factory=list)
    """The request's index."""
    latency_s: list[float] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    tokens: int = 0
    padded_tokens: int = 0


@dataclass(slots=True)
class Record:
    """What came back."""

    unloaded_s: list[float] = field(default_factory=list)
    """[requests]"""
    capacity: float = 0.0
    """Pairs a second."""
    phases: list[Phase] = field(default_factory=list)
    """One for each share."""


def main() -> None:
    """Serves the package, runs the phases in a process of their own, prints one row for each share."""
    args = _arguments()
    pairs = [pair for name in args.dataset for pair in load_pairs(name, args.data, args.limit)]
    requests, sizes = build_requests(pairs, args.requests, args.seed)
    print_machine()
    with serving([args.package], args.serve_option) as server:
        plan = Plan(
            address=server.address,
            requests=requests,
            sizes=sizes,
            repeats=args.repeats,
            concurrency=args.concurrency,
            shares=args.share,
            duration_s=args.duration,
            seed=args.seed,
        )
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            record = pool.apply(run, (plan,))
    rows = [
        {"dataset": " ".join(args.dataset), "share": share, **summarise(record, phase, sizes, args.duration)}
        for share, phase in zip(args.share, record.phases, strict=True)
    ]
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def build_requests(pairs: Sequence[Pair], count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Serialised requests and their sizes. No pair is in two requests, so that no answer can be shared.

    Raises:
        SystemExit: there are too few pairs for a single request.
    """
    draw = random.Random(seed)
    shuffled = draw.sample(list(pairs), len(pairs))
    requests: list[bytes] = []
    sizes: list[int] = []
    used = 0
    while len(requests) < count:
        size = draw.choice(SIZES)
        if used + size > len(shuffled):
            break
        texts = [scoring_pb2.TextPair(first=first, second=second) for first, second in shuffled[used : used + size]]
        requests.append(scoring_pb2.ScoreRequest(text_pairs=scoring_pb2.TextPairs(pairs=texts)).SerializeToString())
        sizes.append(size)
        used += size
    if not requests:
        raise SystemExit(f"{len(pairs)} pairs are too few for a request; give more data (--limit, --dataset)")
    return requests, sizes


def run(plan: Plan) -> Record:
    """All phases; blocks until the last call is answered."""
    return asyncio.run(_run(plan))


def summarise(record: Record, phase: Phase, sizes: Sequence[int], duration_s: float) -> dict[str, object]:
    """One row."""
    unloaded = np.array(record.unloaded_s)
    codes = Counter(phase.codes)
    answered = [at for at, code in enumerate(phase.codes) if code == "OK"]
    latency = np.array([phase.latency_s[at] for at in answered])
    alone = unloaded[[phase.which[at] for at in answered]]
    slowdown = latency / alone
    computed = phase.tokens + phase.padded_tokens
    return {
        "capacity_pairs_per_s": record.capacity,
        "offered_pairs_per_s": sum(sizes[which] for which in phase.which) / duration_s,
        "calls": codes.total(),
        "errors": ", ".join(f"{code} {count}" for code, count in codes.items() if code != "OK") or "0",
        "unloaded_p50_ms": float(np.median(unloaded)) * 1e3,
        "p50_ms": float(np.percentile(latency, 50)) * 1e3,
        "p99_ms": float(np.percentile(latency, 99)) * 1e3,
        "slowdown_p50": float(np.percentile(slowdown, 50)),
        "slowdown_p99": float(np.percentile(slowdown, 99)),
        "p99_over_unloaded_p99": float(np.percentile(latency, 99) / np.percentile(alone, 99)),
        "padding": phase.padded_tokens / computed if computed else None,
    }


async def _run(plan: Plan) -> Record:
    record = Record()
    path = call_of("pairwire", "score").path
    async with grpc.aio.insecure_channel(plan.address, options=proxy_arguments(plan.address)) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, scoring_pb2.ScoreResponse] = channel.unary_unary(
            path, response_deserializer=scoring_pb2.ScoreResponse.FromString
        )
        await channel.channel_ready()
        client = _Client(plan, call)
        for request in plan.requests[:8]:
            await call(request)
        record.unloaded_s = [await client.unloaded(request) for request in plan.requests]
        record.capacity = await client.capacity()
        for share in plan.shares:
            record.phases.append(await client.open_loop(share * record.capacity))
    return record


class _Client:
    def __init__(self, plan: Plan, call: grpc.aio.UnaryUnaryMultiCallable[bytes, scoring_pb2.ScoreResponse]) -> None:
        self._plan = plan
        self._call = call
        self._random = random.Random(plan.seed)
        # Always in the same order: so no request is in flight twice, where the server would answer both with one run.
        self._order = itertools.cycle(self._random.sample(range(len(plan.requests)), len(plan.requests)))

    def _next(self) -> int:
        """Which request is next."""
        return next(self._order)

    async def unloaded(self, request: bytes) -> float:
        seconds = []
        for _ in range(self._plan.repeats):
            begin = time.perf_counter()
            await self._call(request)
            seconds.append(time.perf_counter() - begin)
        return float(np.median(seconds))

    async def capacity(self) -> float:
        """Pairs a second, counted when they are answered, over the middle of a closed loop."""
        plan = self._plan
        begin = time.perf_counter() + 1.0
        end = begin + plan.duration_s
        answered = 0

        async def caller() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                at = self._next()
                await self._call(plan.requests[at])
                if begin <= time.perf_counter() < end:
                    answered += plan.sizes[at]

        await asyncio.gather(*(caller() for _ in range(plan.concurrency)))
        return answered / plan.duration_s

    async def open_loop(self, pairs_per_s: float) -> Phase:
        plan, phase = self._plan, Phase()
        rate = pairs_per_s / (sum(plan.sizes) / len(plan.sizes))
        due = time.perf_counter()
        end = due + plan.duration_s
        calls = []
        while due < end:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            calls.append(asyncio.create_task(self._one(phase, self._next(), due)))
            due += self._random.expovariate(rate)
        await asyncio.gather(*calls)
        return phase

    async def _one(self, phase: Phase, which: int, due: float) -> None:
        code = "OK"
        try:
            response = await self._call(self._plan.requests[which], timeout=60)
            phase.tokens += response.usage.tokens
            phase.padded_tokens += response.usage.padded_tokens
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        phase.which.append(which)
        phase.latency_s.append(time.perf_counter() - due)
        phase.codes.append(code)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description=__doc__)
    parser.add_argument("--package", type=Path, required=True, help="the cross-encoder package to serve")
    parser.add_argument(
        "--serve-option", action="append", default=[], help="passed on to `pairwire serve` (repeatable)"
    )
    parser.add_argument("--dataset", nargs="+", default=["builtin"], help="builtin, stsb, qnli, xquad, scifact")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--limit", type=int, default=400, help="sample at most N pairs of a set (default 400)")
    parser.add_argument("--requests", type=int, default=150, help="distinct requests (default 150)")
    parser.add_argument("--share", type=float, nargs="+", default=[0.8], help="of the capacity (default 0.8)")
    parser.add_argument("--concurrency", type=int, default=32, help="calls in flight to find the capacity (default 32)")
    parser.add_argument("--repeats", type=int, default=3, help="of each unloaded request (default 3)")
    parser.add_argument("--duration", type=float, default=20.0, help="seconds of each loaded phase (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
