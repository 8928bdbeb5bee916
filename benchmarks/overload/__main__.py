"""A real server under more load than it can do: ``python -m benchmarks.overload --package models/demo``.

The capacity first (a closed loop), then Poisson arrivals at several times the capacity, from client processes of their
own, each call with a deadline. ``goodput`` is what was answered in time as a share of the capacity; ``refused_*_ms`` is
how long callers waited for a refusal. No two requests have a text in common: the server would compute it once for both.

``--callers`` shows fair shares instead: one caller sends a single pair now and then, first alone, then beside another
that keeps 64 requests of 256 pairs in flight. ``--partial`` shows what reranks with partial_ok are worth (nDCG@10 on
SciFact, ``--data DIR``), and ``--large`` what the largest requests do to others and to memory, and how fast they end
when they are cancelled.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import load_client
from ..datasets import Pair, load_pairs
from ..report import print_machine, print_table, write_json
from ..serving import Server, serving
from . import callers, large, partial
from .sending import CALLER_KEY, Row, latencies, percentiles, plan, requests_of, run, told, unlike

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row for each load, or what another mode shows."""
    args = _arguments(arguments)
    print_machine()
    fresh = unlike(load_pairs(args.dataset, args.data, args.limit))
    with serving([args.package], ["--caller-key", CALLER_KEY, *args.serve_option]) as server:
        columns: Sequence[str]
        if args.callers:
            columns, rows = callers.COLUMNS, callers.callers(args, server, fresh)
        elif args.partial:
            columns, rows = partial.COLUMNS, partial.partial(args, server)
        elif args.large:
            columns, rows = large.COLUMNS, large.large(args, server, fresh)
        else:
            columns, rows = COLUMNS, _loads(args, server, fresh)
    print_table(rows, columns)
    write_json(args.json, rows)


def _loads(args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> list[Row]:
    seconds = args.warmup + args.duration
    run([plan(args, server, requests_of(fresh, 400, args.pairs), concurrency=8)])  # until costs are known well
    (record,) = run([plan(args, server, requests_of(fresh, 4000, args.pairs), concurrency=8)])
    capacity = record.answered / args.duration  # calls a second
    print(f"capacity: {capacity * args.pairs:.0f} pairs/s in requests of {args.pairs}, deadline {args.deadline:g} s")
    rows: list[Row] = []
    for load in args.load:
        rate = load * capacity / args.processes
        count = int(1.2 * rate * seconds) + 10
        plans = [
            plan(args, server, requests_of(fresh, count, args.pairs), rate_hz=rate, seed=args.seed + at)
            for at in range(args.processes)
        ]
        rows.append({"load": load, **summarise(run(plans), args.pairs, args.duration, capacity)})
    return rows


def summarise(records: Sequence[load_client.Record], pairs: int, duration_s: float, capacity: float) -> Row:
    """One row; ``capacity`` in calls a second."""
    codes = Counter(code for record in records for code in record.codes)
    answered = sum(record.answered for record in records)
    return {
        "pairs_per_s": answered * pairs / duration_s,
        "goodput": answered / duration_s / capacity,
        "calls": codes.total(),
        "in_time": codes["OK"] / max(1, codes.total()),
        "codes": told(codes),
        **percentiles("", latencies(records, failed=False)),
        **percentiles("refused_", latencies(records, failed=True)),
    }


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
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
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--callers", action="store_true", help="two callers, a small one and a flood, instead")
    mode.add_argument("--partial", action="store_true", help="reranks with and without partial_ok, instead")
    mode.add_argument("--large", action="store_true", help="the largest requests, instead")
    parser.add_argument("--turns", type=int, default=1, help="--callers: times that both are measured (default 1)")
    parser.add_argument("--depth", type=int, default=50, help="--partial: documents a request (default 50)")
    parser.add_argument("--shuffled", action="store_true", help="--partial: documents in no order instead of BM25's")
    parser.add_argument("--max-length", type=int, default=128, help="--partial: tokens a pair is cut to (default 128)")
    parser.add_argument("--queries", type=int, default=0, help="--partial: only the first N claims (default all)")
    parser.add_argument("--documents", type=int, default=2000, help="--large: documents a request (default 2000)")
    parser.add_argument("--kilobytes", type=float, default=12.5, help="--large: size of a document (default 12.5)")
    parser.add_argument("--at-once", type=int, default=4, help="--large: such requests at once (default 4)")
    parser.add_argument("--processes", type=int, default=2, help="client processes (default 2)")
    parser.add_argument("--duration", type=float, default=10.0, help="measured seconds (default 10)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that are not counted (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args(arguments)
    if args.partial and args.data is None:
        parser.error("--partial needs --data DIR: the folder that holds SciFact (see benchmarks/datasets.py)")
    return args


if __name__ == "__main__":
    main()
