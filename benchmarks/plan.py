"""Batching rules in virtual time: ``python -m benchmarks.plan --data DIR --tokenizer models/demo``.

The server's own scheduler and planner, and the rules of other servers (see ``batching/rules.py``), get the same calls,
the same workers and the same costs of a batch: a recorded table, or with ``--package DIR`` one that is measured now.
Calls have 1 to 100 pairs, small ones as often as large ones on a logarithmic scale.

Two loads: saturation, with a number of calls always in flight, which shows the capacity; and Poisson arrivals at a
share of the capacity of Pairwire's rule, which show the latency. A rule whose own capacity is below that rate is
overloaded there: its queue grows for as long as the simulation lasts, and so do its latencies. ``slowdown`` is a
call's latency in terms of what Pairwire's rule would need for it on an idle server; ``lost`` is unfairness, see
``batching/figures.py``.

``--overload`` shows instead what is answered in time when more comes than can be done: goodput, as a share of the
capacity, at several times the capacity, for requests of 32 pairs and for a mix of sizes and deadlines, with exact
costs, with noise in them, and with neighbours that take half of the CPUs from half of the time on; for Pairwire, a
bounded FIFO queue and CoDel with adaptive LIFO, see ``batching/overload.py``.

``--plan-time`` measures instead what the planner itself takes, as a share of the compute that it plans.
Everything but that is the same in every run with the same seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pairwire.server.runtime.base import Int32Array

from .batching import lengths, tables
from .batching.figures import alone, figures
from .batching.overload import POLICIES
from .batching.overload_report import TRAFFIC, WEATHERS, overload_rows
from .batching.planning import POOLS, planning_time
from .batching.rules import RULES, Call
from .batching.simulation import ClosedLoop, Float64Array, OpenLoop, simulate
from .batching.tables import Recording, Truth
from .batching.workload import make_calls, mean_rows, poisson
from .report import histogram, print_machine, print_table, write_json

OURS = "pairwire"
RATES = ("capacity_per_s", "ratio", "pairs_per_s", "padding")
FAIRNESS = ("lost_p99_ms", "lost_max_ms", "lost_p99_calls", "lost_max_calls", "short_p99_ms", "long_p99_ms")
SATURATED = ("dataset", "rule", *RATES, "p50_ms", "p99_ms", *FAIRNESS)
OPEN = ("dataset", "rule", *RATES, "overloaded", "p50_ms", "p99_ms", "slowdown_p50", "slowdown_p99", *FAIRNESS)
OVERLOAD = ("dataset", "traffic", "weather", "load", *(f"goodput_{name.replace('-', '_')}" for name in POLICIES))
PLANNING = ("dataset", "pool", "plan_ms", "compute_ms", "plan_share", "scheduler_share")

Row = dict[str, object]


def main() -> None:
    """Simulates every rule on every table and distribution, and prints one table a load."""
    args = _arguments()
    print_machine()
    rows: list[Row] = []
    for recording in _recordings(args):
        if args.workers:
            recording = dataclasses.replace(recording, workers=args.workers)
        kind = "measured on" if recording.measured else "NOT MEASURED:"
        print(f"\ncosts: {recording.name}, {recording.workers} workers; {kind} {recording.about}")
        if args.overload:
            rows += _overloaded(args, recording)
        else:
            rows += _planning(args, recording) if args.plan_time else _simulated(args, recording)
    write_json(args.json, rows)


def _simulated(args: argparse.Namespace, recording: Recording) -> list[Row]:
    saturated: list[Row] = []
    by_load: dict[float, list[Row]] = {load: [] for load in args.load}
    truth, workers = recording.truth(), recording.workers
    for dataset in _datasets(args):
        series = _series(args, dataset, recording)
        print(f"{dataset}: {histogram(np.concatenate(series))}")
        calls = make_calls(series, args.calls, args.seed)
        found = _at(args, recording, truth, calls, ClosedLoop(args.in_flight))
        saturated += ({"dataset": dataset, "load": "saturated"} | row for row in found)
        capacity = {str(row["rule"]): float(str(row["capacity_per_s"])) for row in found}
        idle = alone(RULES[OURS](recording, workers), calls, truth, workers) if args.load else None
        for load in args.load:
            rate = load * capacity[OURS] / mean_rows(calls)
            found = _at(args, recording, truth, calls, poisson(len(calls), rate, args.seed), idle)
            for row in found:
                row["overloaded"] = "yes" if capacity[str(row["rule"])] < load * capacity[OURS] else "no"
            by_load[load] += ({"dataset": dataset, "load": f"{load:.0%} open"} | row for row in found)
    print(f"\nsaturated, {args.in_flight} calls in flight")
    print_table(saturated, SATURATED)
    for load, rows in by_load.items():
        print(f"\nPoisson arrivals at {load:.0%} of the capacity of {OURS!r}")
        print_table(rows, OPEN)
    return [
        {"costs": recording.name} | row for row in (*saturated, *(row for rows in by_load.values() for row in rows))
    ]


def _at(
    args: argparse.Namespace,
    recording: Recording,
    truth: Truth,
    calls: Sequence[Call],
    load: OpenLoop | ClosedLoop,
    idle: Float64Array | None = None,
) -> list[Row]:
    """One row for each rule; ``ratio`` is to the capacity of ours."""
    rows: list[Row] = []
    for name in args.rule:
        rule = RULES[name](recording, recording.workers)
        trace = simulate(rule, calls, truth, workers=recording.workers, load=load)
        rows.append({"rule": name, **figures(trace, idle)})
    ours = next(float(str(row["capacity_per_s"])) for row in rows if row["rule"] == OURS)
    return [row | {"ratio": float(str(row["capacity_per_s"])) / ours} for row in rows]


def _planning(args: argparse.Namespace, recording: Recording) -> list[Row]:
    rows: list[Row] = []
    for dataset in _datasets(args):
        series = _series(args, dataset, recording)
        for pool in args.pool:
            rows.append({"dataset": dataset, "pool": pool, **planning_time(recording, series, pool, args.seed)})
    print_table(rows, PLANNING)
    return [{"costs": recording.name} | row for row in rows]


def _overloaded(args: argparse.Namespace, recording: Recording) -> list[Row]:
    rows: list[Row] = []
    for dataset in _datasets(args):
        series = _series(args, dataset, recording)
        for traffic in TRAFFIC:
            for weather in WEATHERS:
                rows += ({"dataset": dataset} | row for row in overload_rows(recording, series, traffic, weather))
    print_table(rows, OVERLOAD)
    return [{"costs": recording.name} | row for row in rows]


def _datasets(args: argparse.Namespace) -> list[str]:
    return args.dataset or lengths.names(args.data)


def _series(args: argparse.Namespace, dataset: str, recording: Recording) -> list[Int32Array]:
    source = args.tokenizer or args.package
    counter = lengths.tokenizer_counter(source) if source else lengths.estimating_counter(recording.max_length)
    return lengths.load_lengths(dataset, args.data, counter, recording.max_length, args.seed)


def _recordings(args: argparse.Namespace) -> list[Recording]:
    if args.package:
        recording = tables.measure_package(args.package, args.variant, args.passes)
        if args.record:
            recording = dataclasses.replace(recording, name=args.record.stem)
            tables.write(recording, args.record)
        return [recording]
    known = tables.shipped()
    return [
        tables.modelled_gpu() if name == tables.MODELLED else tables.read(known.get(name, Path(name)))
        for name in args.costs
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*tables.shipped(), tables.MODELLED]
    parser.add_argument(
        "--costs",
        nargs="+",
        default=["minilm-l6-cpu-int8"],
        help=f"recorded tables: {', '.join(known)}, or files of --record",
    )
    parser.add_argument("--package", type=Path, help="measure this model package now, instead of --costs")
    parser.add_argument("--variant", default="", help="with --package: the variant to measure")
    parser.add_argument("--passes", type=int, default=3, help="with --package: how often to measure (default 3)")
    parser.add_argument("--record", type=Path, help="with --package: write what was measured to this file")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets (see benchmarks/datasets.py)")
    parser.add_argument(
        "--dataset", nargs="+", default=[], help="stsb, qnli, xquad, scifact, builtin, lognormal, mixed (default: all)"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="model package whose tokenizer counts (default: --package's, or an estimate)"
    )
    parser.add_argument("--rule", nargs="+", default=list(RULES), choices=list(RULES), help="default: all")
    parser.add_argument("--workers", type=int, default=0, help="batches that run at once (default: the recording's)")
    parser.add_argument("--calls", type=int, default=1000, help="calls of a simulation (default 1000)")
    parser.add_argument("--in-flight", type=int, default=16, help="calls in flight at saturation (default 16)")
    parser.add_argument(
        "--load", type=float, nargs="*", default=[0.8], help="open loop: shares of Pairwire's capacity (default 0.8)"
    )
    parser.add_argument("--overload", action="store_true", help="goodput at several times the capacity instead")
    parser.add_argument("--plan-time", action="store_true", help="measure the planner's own time instead")
    parser.add_argument("--pool", type=int, nargs="+", default=POOLS, help="with --plan-time: pairs that wait")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    if OURS not in args.rule:
        args.rule.append(OURS)  # what the others are compared with
    return args


if __name__ == "__main__":
    main()
