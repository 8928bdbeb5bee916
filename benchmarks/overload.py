"""A real server under more load than it can do: ``python -m benchmarks.overload --package models/demo``.

The capacity first (a closed loop), then Poisson arrivals at several times the capacity, from client processes of their
own, each call with a deadline. ``goodput`` is what was answered in time as a share of the capacity; ``refused_*_ms`` is
how long callers waited for a refusal. No two requests have a text in common: the server would compute it once for both.

``--callers`` shows fair shares instead: one caller sends a single pair now and then, first alone, then beside another
that keeps 64 requests of 256 pairs in flight.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from . import load_client
from .datasets import Pair, load_pairs
from .load import build_requests
from .report import print_machine, print_table, write_json
from .serving import Server, serving

COLUMNS = (
    "load",
    "pairs_per_s",
    "goodput",
    "calls",
    "in_time",
    "codes",
    "p50_ms",
    "p99_ms",
    "refused_p50_ms",
    "refused_p99_ms",
)
CALLERS = ("caller", "beside", "calls", "codes", "p50_ms", "p99_ms", "p99_ratio")
CALLER_KEY = "x-caller"
FLOOD_CALLS, FLOOD_PAIRS = 64, 256

Row = dict[str, object]


def main() -> None:
    """Prints one row for each load, or for each caller."""
    args = _arguments()
    print_machine()
    pairs = load_pairs(args.dataset, args.data, args.limit)
    fresh = unlike(pairs)
    with serving([args.package], ["--caller-key", CALLER_KEY, *args.serve_option]) as server:
        rows = _callers(args, server, fresh) if args.callers else _loads(args, server, fresh)
    print_table(rows, CALLERS if args.callers else COLUMNS)
    write_json(args.json, rows)


def unlike(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs over and over, no two texts alike."""
    for number in itertools.count():
        first, second = pairs[number % len(pairs)]
        yield f"{number} {first}", f"{number} {second}"


def _loads(args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> list[Row]:
    seconds = args.warmup + args.duration
    plans = [_plan(args, server, _requests(fresh, 400, args.pairs), concurrency=8)]
    _run(plans)  # until the costs of batches are known well
    (record,) = _run([_plan(args, server, _requests(fresh, 4000, args.pairs), concurrency=8)])
    capacity = record.answered / args.duration  # calls a second
    print(f"capacity: {capacity * args.pairs:.0f} pairs/s in requests of {args.pairs}, deadline {args.deadline:g} s")
    rows: list[Row] = []
    for load in args.load:
        rate = load * capacity / args.processes
        count = int(1.2 * rate * seconds) + 10
        plans = [
            _plan(args, server, _requests(fresh, count, args.pairs), rate_hz=rate, seed=args.seed + at)
            for at in range(args.processes)
        ]
        rows.append({"load": load, **summarise(_run(plans), args.pairs, args.duration, capacity)})
    return rows


def summarise(records: Sequence[load_client.Record], pairs: int, duration_s: float, capacity: float) -> Row:
    """One row; ``capacity`` in calls a second."""
    codes = Counter(code for record in records for code in record.codes)
    answered = sum(record.answered for record in records)
    ok, refused = _latencies(records, failed=False), _latencies(records, failed=True)
    return {
        "pairs_per_s": answered * pairs / duration_s,
        "goodput": answered / duration_s / capacity,
        "calls": codes.total(),
        "in_time": codes["OK"] / max(1, codes.total()),
        "codes": _told(codes),
        **_percentiles("", ok),
        **_percentiles("refused_", refused),
    }


def _callers(args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> list[Row]:
    def small() -> load_client.Plan:
        requests = _requests(fresh, int(30 * (args.duration + args.warmup)) + 10, 1)
        return _plan(args, server, requests, rate_hz=20.0, caller="small")

    _run([_plan(args, server, _requests(fresh, 200, 32), concurrency=8, caller="warm-up")])
    (alone,) = _run([small()])
    flood = _plan(
        args, server, _requests(fresh, 400, FLOOD_PAIRS), concurrency=FLOOD_CALLS, caller="flood", deadline_s=30.0
    )
    beside, flooding = _run([small(), flood])
    rows: list[Row] = []
    for caller, other, record in (("small", "-", alone), ("small", "flood", beside), ("flood", "small", flooding)):
        codes = Counter(record.codes)
        found = _percentiles("", _latencies([record], failed=False))
        rows.append({"caller": caller, "beside": other, "calls": codes.total(), "codes": _told(codes), **found})
    rows[1]["p99_ratio"] = float(str(rows[1]["p99_ms"])) / float(str(rows[0]["p99_ms"]))
    return rows


def _requests(fresh: Iterator[Pair], count: int, pairs: int) -> list[bytes]:
    return build_requests("score", list(itertools.islice(fresh, count * pairs)), pairs, "")


def _plan(
    args: argparse.Namespace,
    server: Server,
    requests: Sequence[bytes],
    *,
    concurrency: int = 0,
    rate_hz: float | None = None,
    caller: str = "one",
    deadline_s: float | None = None,
    seed: int = 0,
) -> load_client.Plan:
    patient = rate_hz is None and deadline_s is None
    return load_client.Plan(
        address=server.address,
        shape="score",
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


def _run(plans: Sequence[load_client.Plan]) -> list[load_client.Record]:
    with multiprocessing.get_context("spawn").Pool(len(plans)) as pool:
        return pool.map(load_client.run, plans, chunksize=1)


def _latencies(records: Sequence[load_client.Record], *, failed: bool) -> list[float]:
    return [
        seconds
        for record in records
        for seconds, code in zip(record.latency_s, record.codes, strict=True)
        if (code != "OK") is failed
    ]


def _percentiles(prefix: str, seconds: Sequence[float]) -> Row:
    if not seconds:
        return {}
    return {f"{prefix}p{share}_ms": 1e3 * float(np.percentile(seconds, share)) for share in (50, 99)}


def _told(codes: Counter[str]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, required=True, help="serve this package for the test")
    parser.add_argument(
        "--serve-option", action="append", default=[], help="passed on to `pairwire serve` (repeatable)"
    )
    parser.add_argument("--dataset", default="builtin", help="builtin, stsb, qnli, xquad or scifact (default builtin)")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--limit", type=int, default=2048, help="sample at most N pairs (default 2048)")
    parser.add_argument("--pairs", type=int, default=32, help="pairs a request (default 32)")
    parser.add_argument("--load", type=float, nargs="+", default=[1.2, 2.0, 5.0], help="times the capacity")
    parser.add_argument("--deadline", type=float, default=1.0, help="deadline of a call in seconds (default 1)")
    parser.add_argument("--callers", action="store_true", help="two callers, a small one and a flood, instead")
    parser.add_argument("--processes", type=int, default=2, help="client processes (default 2)")
    parser.add_argument("--duration", type=float, default=10.0, help="measured seconds (default 10)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that are not counted (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
