"""Fair shares: one caller sends a single pair now and then, alone and beside another that floods, in turns."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

from ..datasets import Pair
from ..load_client import Plan, Record
from ..serving import Server
from .sending import Row, latencies, percentiles, plan, requests_of, run, told

COLUMNS = ("turn", "caller", "beside", "calls", "codes", "p50_ms", "p99_ms", "p99_ratio")
FLOOD_CALLS, FLOOD_PAIRS = 64, 256
_SMALL_HZ = 20.0


def callers(args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> list[Row]:
    """Three rows a turn: the small caller alone, beside the flood, and the flood."""

    def small() -> Plan:
        requests = requests_of(fresh, int(1.5 * _SMALL_HZ * (args.duration + args.warmup)) + 10, 1)
        return plan(args, server, requests, rate_hz=_SMALL_HZ, caller="small")

    run([plan(args, server, requests_of(fresh, 200, 32), concurrency=8, caller="warm-up")])
    rows: list[Row] = []
    for turn in range(args.turns):
        (alone,) = run([small()])
        requests = requests_of(fresh, 400, FLOOD_PAIRS)
        flood = plan(args, server, requests, concurrency=FLOOD_CALLS, caller="flood", deadline_s=30.0)
        beside, flooding = run([small(), flood])
        quiet = _row(turn, "small", "-", alone)
        loud = _row(turn, "small", "flood", beside)
        loud["p99_ratio"] = float(str(loud["p99_ms"])) / float(str(quiet["p99_ms"]))
        rows += [quiet, loud, _row(turn, "flood", "small", flooding)]
    return rows


def _row(turn: int, caller: str, other: str, record: Record) -> Row:
    codes = Counter(record.codes)
    found = percentiles("", latencies([record], failed=False))
    return {"turn": turn, "caller": caller, "beside": other, "calls": codes.total(), "codes": told(codes), **found}
