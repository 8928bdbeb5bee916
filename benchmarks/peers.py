"""The engine in process against sentence-transformers' backends: same checkpoint, same pairs, same cores, one run.

``python -m benchmarks.peers --checkpoint export/demo/adapter --dataset stsb scifact --data DIR``

``python -m benchmarks.peers --shape minilm-l12 bert-base --dataset stsb scifact --data DIR --json FILE``

With ``--shape`` it makes checkpoints of popular shapes with random weights and prints one table (`shape_table`).

The systems take turns (A B C, A B C, ...), so that a noisy machine disturbs all alike; the figures are medians of the
repeats and the ratios are medians of the ratios within a turn. Text in, scores out, tokenising included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pairwire.server.engine import Engine, EngineConfig

from . import rivals, shape_table
from .agreement import agreement
from .checkpoints import export_package, merged_checkpoint
from .datasets import Pair, load_pairs
from .full_size import FULL_SIZES
from .report import histogram, print_machine, print_table, write_json

REFERENCE = "torch-fp32"
WARM_PAIRS = 64
"""Scored before each measurement: caches hold the weights of the system before, whose threads may still be spinning."""
COLUMNS = (
    "dataset",
    "system",
    "pairs_per_s",
    "ratio_to_torch",
    "tokens_per_s",
    "max_abs_diff",
    "mean_abs_diff",
    "spearman",
)


class EngineSystem:
    """Pairwire's engine, in process."""

    def __init__(self, package: Path, config: EngineConfig) -> None:
        self._runner = asyncio.Runner()
        self._engine = self._runner.run(Engine.open(package, config=config))

    def predict(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Scores float32 [pairs]."""
        return self._runner.run(self._engine.score(pairs)).scores[:, 0]

    def tokens(self, pairs: Sequence[Pair]) -> int:
        """Tokens of the pairs, special tokens included."""
        return self._runner.run(self._engine.score(pairs)).usage.tokens

    def close(self) -> None:
        """Stops the workers."""
        self._runner.run(self._engine.close())
        self._runner.close()


def main() -> None:
    """Builds every system that can be built here, then measures data set by data set."""
    args = _arguments()
    if args.shape:
        shape_table.run(args, _ours)
        return
    print_machine()
    work = args.work or Path(tempfile.mkdtemp(prefix="pairwire-peers-"))
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = merged_checkpoint(args.checkpoint, work)
    package = args.package or export_package(args.checkpoint, work, args.precision)
    systems = _systems(args, checkpoint, package, work)
    rows: list[dict[str, object]] = []
    for dataset in args.dataset:
        pairs = load_pairs(dataset, args.data, args.limit)
        found = _measure(dataset, systems, pairs, args.repeats)
        print_table(found, COLUMNS)
        rows += found
    write_json(args.json, rows)
    for system in systems.values():
        if isinstance(system, EngineSystem):
            system.close()


def _systems(
    args: argparse.Namespace, checkpoint: Path, package: Path, work: Path
) -> dict[str, rivals.System | EngineSystem]:
    systems: dict[str, rivals.System | EngineSystem] = {}
    calibration = load_pairs(args.dataset[0], args.data, 300, seed=1)
    for name in args.rivals:
        try:
            systems[name] = rivals.build(name, checkpoint, work, args.batch_size, calibration)
        except ImportError as error:
            print(f"{name}: left out, {error}")
    for precision in args.precision:
        systems[f"{shape_table.OURS}{precision}"] = _ours(package, precision)
    return systems


def _ours(package: Path, precision: str) -> EngineSystem:
    # No run depends on an earlier one: repeats score the same pairs, and the rivals tokenise them again each time.
    return EngineSystem(package, EngineConfig(variant=f"cpu-{precision}", cache_dir="none", token_cache_bytes=0))


def _measure(
    dataset: str, systems: dict[str, rivals.System | EngineSystem], pairs: list[Pair], repeats: int
) -> list[dict[str, object]]:
    ours = next(system for system in systems.values() if isinstance(system, EngineSystem))
    tokens = ours.tokens(pairs)
    print(f"\n{dataset}: {len(pairs)} pairs, {tokens} tokens; a sample: {histogram(_lengths(ours, pairs))}")
    scores = {name: system.predict(pairs[:64]) for name, system in systems.items()}  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            gc.collect()
            system.predict(pairs[:WARM_PAIRS])
            begin = time.perf_counter()
            scores[name] = system.predict(pairs)
            seconds[name].append(time.perf_counter() - begin)
    reference = scores.get(REFERENCE)
    rows: list[dict[str, object]] = []
    for name, times in seconds.items():
        median = float(np.median(times))
        row: dict[str, object] = {
            "dataset": dataset,
            "system": name,
            "pairs": len(pairs),
            "pairs_per_s": len(pairs) / median,
            "tokens_per_s": tokens / median,
            "seconds": times,
        }
        if reference is not None:
            row["ratio_to_torch"] = float(np.median(np.array(seconds[REFERENCE]) / np.array(times)))
            row |= agreement(scores[name], reference)
        rows.append(row)
    return rows


def _lengths(ours: EngineSystem, pairs: list[Pair]) -> npt.NDArray[np.int64]:
    return np.array([ours.tokens([pair]) for pair in pairs[:256]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--checkpoint", help="a cross-encoder checkpoint or PEFT adapter")
    subject.add_argument("--shape", nargs="+", choices=list(FULL_SIZES), help="random weights of these shapes: a table")
    parser.add_argument("--package", type=Path, help="its package, where it is exported already")
    parser.add_argument("--dataset", nargs="+", default=["builtin"], help="builtin, stsb, qnli, xquad, scifact")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--limit", type=int, default=512, help="sample at most N pairs of a set (default 512)")
    parser.add_argument("--precision", nargs="+", default=["int8", "fp32"], help="our variants (default int8 fp32)")
    parser.add_argument("--rivals", nargs="*", choices=list(rivals.RIVALS), help="default: all that can be built here")
    parser.add_argument("--batch-size", type=int, default=32, help="the rivals' batch size (default 32, as theirs)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cell-s", type=float, default=60, help="with --shape: about this long a cell (default 60 s)")
    parser.add_argument(
        "--build-s", type=float, default=1800, help="with --shape: most seconds to make one system (default 1800)"
    )
    parser.add_argument("--work", type=Path, help="keep exports there (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    if args.rivals is None:
        args.rivals = list(shape_table.RIVALS if args.shape else rivals.RIVALS)
    return args


if __name__ == "__main__":
    main()
