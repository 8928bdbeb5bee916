"""Requests with texts of their own, client processes that send them, and percentiles of what came back."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from .. import load_client
from ..datasets import Pair
from ..load import build_requests
from ..serving import Server

CALLER_KEY = "x-caller"

Row = dict[str, object]


def unlike(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs over and over, no two texts alike."""
    for number in itertools.count():
        first, second = pairs[number % len(pairs)]
        yield f"{number} {first}", f"{number} {second}"


def requests_of(fresh: Iterator[Pair], count: int, pairs: int) -> list[bytes]:
    """``count`` requests of so many pairs each."""
    return build_requests("score", list(itertools.islice(fresh, count * pairs)), pairs, "")


def plan(
    args: argparse.Namespace,
    server: Server,
    requests: Sequence[bytes],
    *,
    shape: str = "score",
    concurrency: int = 0,
    rate_hz: float | None = None,
    caller: str = "one",
    deadline_s: float | None = None,
    seed: int = 0,
) -> load_client.Plan:
    """What one client process does; a closed loop is patient unless it is given a deadline."""
    patient = rate_hz is None and deadline_s is None
    return load_client.Plan(
        address=server.address,
        shape=shape,
        requests=requests,
        concurrency=concurrency,
        connections=1,
        rate_hz=rate_hz,
        warmup_s=args.warmup,
        duration_s=args.duration,
        deadline_s=30.0 if patient else deadline_s or args.deadline,
        seed=seed,
        metadata=((CALLER_KEY, caller),),
    )


def run(plans: Sequence[load_client.Plan]) -> list[load_client.Record]:
    """All at once, each in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(len(plans)) as pool:
        return pool.map(load_client.run, plans, chunksize=1)


def latencies(records: Sequence[load_client.Record], *, failed: bool) -> list[float]:
    """Seconds of the calls that were answered, or of those that were not."""
    return [
        seconds
        for record in records
        for seconds, code in zip(record.latency_s, record.codes, strict=True)
        if (code != "OK") is failed
    ]


def percentiles(prefix: str, seconds: Sequence[float]) -> Row:
    """The 50th and 99th in milliseconds; nothing of nothing."""
    if not seconds:
        return {}
    return {f"{prefix}p{share}_ms": 1e3 * float(np.percentile(seconds, share)) for share in (50, 99)}


def told(codes: Counter[str]) -> str:
    """Status codes with their counts."""
    return ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
