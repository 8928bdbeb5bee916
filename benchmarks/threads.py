"""Workers times threads of a run: the same batches under several layouts, taking turns.

``python -m benchmarks.threads --package DIR [--shapes 18x28 4x128 1x384] [--layouts 1x1 2x1 1x2]``

A layout is WORKERSxTHREADS: threads that each run batches on the one session, and threads that the session uses for
one run. Rates are by wall time, because working side by side is what is measured: layouts take turns, and the medians
of the turns are compared. On a machine that others load too, only two columns are solid: the CPU time of a token, and
``undisturbed``, the rate that would be if every run were as fast as the fastest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pairwire.server.cpus import usable_cpus
from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.package import read_package
from pairwire.server.profiling.shapes import full_batch
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime

from .report import print_machine, print_table, write_json

COLUMNS = ("shape", "layout", "tokens_per_s", "ratio", "undisturbed_tokens_per_s", "cpu_us_per_token", "best_run_ms")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one layout did in one turn."""

    tokens_per_s: float
    cpu_us_per_token: float
    best_run_ms: float
    """Wall time of the fastest run."""


def main() -> None:
    """Measures shape by shape."""
    args = _arguments()
    print_machine()
    print(f"usable CPUs (affinity and quota): {usable_cpus()} of {os.cpu_count()}")
    package = read_package(args.package)
    variant = package.variant(args.variant)
    graph = package.graph_file(variant)
    runtimes = {
        threads: OnnxCpuRuntime(
            graph, CpuOptions(intra_op_threads=threads, disabled_optimizers=tuple(variant.disabled_optimizers))
        )
        for threads in sorted({threads for _, threads in args.layouts})
    }
    rows: list[dict[str, object]] = []
    for bucket in (Bucket(rows, length) for rows, length in args.shapes):
        turns: dict[tuple[int, int], list[Turn]] = {layout: [] for layout in args.layouts}
        for layout in args.layouts * args.repeats:
            turns[layout].append(_turn(runtimes[layout[1]], bucket, layout[0], args.seconds))
        found = [_row(bucket, layout, turns, args.layouts[0]) for layout in args.layouts]
        print_table(found, COLUMNS)
        rows += found
    write_json(args.json, rows)


def _turn(runtime: OnnxCpuRuntime, bucket: Bucket, workers: int, seconds: float) -> Turn:
    """Workers that run one batch after the other."""
    batch = full_batch(bucket)
    runtime.run(batch)
    taken: list[float] = []
    start = threading.Barrier(workers + 1)

    def work() -> None:
        start.wait()
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            runtime.run(batch)
            taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    start.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = len(taken) * bucket.tokens
    return Turn(tokens / wall, cpu * 1e6 / tokens, min(taken) * 1e3)


def _row(
    bucket: Bucket, layout: tuple[int, int], turns: dict[tuple[int, int], list[Turn]], first: tuple[int, int]
) -> dict[str, object]:
    mine = turns[layout]
    ratios = [turn.tokens_per_s / other.tokens_per_s for turn, other in zip(mine, turns[first], strict=True)]
    best_run_ms = min(turn.best_run_ms for turn in mine)
    return {
        "shape": f"{bucket.rows}x{bucket.length}",
        "layout": f"{layout[0]}x{layout[1]}",
        "tokens_per_s": statistics.median(turn.tokens_per_s for turn in mine),
        "ratio": statistics.median(ratios),
        "undisturbed_tokens_per_s": layout[0] * bucket.tokens / best_run_ms * 1e3,
        "cpu_us_per_token": statistics.median(turn.cpu_us_per_token for turn in mine),
        "best_run_ms": best_run_ms,
    }


def _pair(what: str) -> Callable[[str], tuple[int, int]]:
    def parse(text: str) -> tuple[int, int]:
        first, _, second = text.partition("x")
        if not (first.isdecimal() and second.isdecimal() and int(first) and int(second)):
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}; expected two numbers, as in 2x1")
        return int(first), int(second)

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--package", metavar="DIR", type=Path, required=True)
    parser.add_argument("--variant", metavar="NAME", default="")
    parser.add_argument(
        "--shapes", nargs="+", type=_pair("shape"), default=[(18, 28), (4, 128), (1, 384)], metavar="ROWSxTOKENS"
    )
    parser.add_argument(
        "--layouts", nargs="+", type=_pair("layout"), default=[(1, 1), (2, 1), (1, 2)], metavar="WORKERSxTHREADS"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: 1)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each layout (default: 7)")
    parser.add_argument("--json", metavar="FILE", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
