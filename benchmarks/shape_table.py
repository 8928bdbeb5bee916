"""`benchmarks.peers --shape NAME ...`: popular shapes with random weights, ours beside sentence-transformers' backends.

A cell is one system on one shape and one data set. Each system is made in a process of its own that is ended after
``--build-s`` seconds, and each cell takes about ``--cell-s`` seconds: a slow system scores fewer of the same pairs,
which are shuffled. What cannot be made is left out, with the reason. JSON is written after each shape.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.errors import CheckpointNotFound

from . import rivals
from .datasets import Pair, load_pairs
from .full_size import FULL_SIZES, save_full_size
from .report import print_machine, write_json

OURS = "pairwire-"
MOST_TOKENS = 512
"""That packages read, as the rivals do."""
_TRIED = 8
"""Pairs that show how fast a system is."""
_LEAST = 16
"""Pairs of a cell, however slow it is."""
_REAL_VOCABULARY = "sentence-transformers/all-MiniLM-L6-v2"
RIVALS: Mapping[str, str] = {
    "torch-fp32": "torch",
    "onnx-int8": "onnx int8",
    "openvino-int8": "openvino int8",
}
"""The rivals of the table, as its columns call them."""
_CALIBRATION = 300
_LONGEST_REASON = 200
"""Characters."""


class System(Protocol):
    """What is measured."""

    def predict(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Scores float32 [pairs]."""
        ...


def run(args: argparse.Namespace, open_ours: Callable[[Path, str], System]) -> None:
    """Measures all cells and prints the table; ``open_ours`` makes our system of a package and a precision."""
    print_machine()
    work = args.work or Path(tempfile.mkdtemp(prefix="pairwire-shapes-"))
    rows: list[dict[str, object]] = []
    for shape in args.shape:
        rows += _measured(args, shape, work / shape, open_ours)
        write_json(args.json, rows)
    print("\n" + "\n".join(as_markdown(rows)))


def _measured(
    args: argparse.Namespace, shape: str, work: Path, ours: Callable[[Path, str], System]
) -> list[dict[str, object]]:
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint"
    vocabulary = _vocabulary(shape)
    if not (checkpoint / "config.json").is_file():
        save_full_size(FULL_SIZES[shape], checkpoint, vocabulary)
    kind = "a real vocabulary" if vocabulary else "trained pieces, filled up to the real size of its vocabulary"
    print(f"\n{shape}: random weights, {kind}", flush=True)
    reasons = {name: _made(args, name, checkpoint, work) for name in [*args.rivals, "package"]}
    found: dict[str, System] = {}
    for name in (each for each in args.rivals if not reasons[each]):
        found[name] = rivals.build(name, checkpoint, work, args.batch_size, [])
    for precision in args.precision if not reasons["package"] else []:
        found[f"{OURS}{precision}"] = ours(work / "package", precision)
    rows: list[dict[str, object]] = []
    for dataset in args.dataset:
        pairs = load_pairs(dataset, args.data, args.limit)
        Random(0).shuffle(pairs)
        rows += _cells(args, shape, dataset, found, pairs)
    for name, reason in reasons.items():
        if reason:
            print(f"  {name}: left out, {reason}", flush=True)
            rows.append({"shape": shape, "system": name, "left_out": reason})
    for system in found.values():
        getattr(system, "close", lambda: None)()
    return rows


def _cells(
    args: argparse.Namespace, shape: str, dataset: str, systems: Mapping[str, System], pairs: list[Pair]
) -> list[dict[str, object]]:
    """Systems take turns, each with as many pairs as it scores in its time."""
    counts = {name: _affordable(system, pairs, args.cell_s / args.repeats) for name, system in systems.items()}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(args.repeats):
        for name, system in systems.items():
            gc.collect()
            system.predict(pairs[:_TRIED])
            begin = time.perf_counter()
            system.predict(pairs[: counts[name]])
            seconds[name].append(time.perf_counter() - begin)
    rates = {name: counts[name] / np.array(times) for name, times in seconds.items()}
    rows: list[dict[str, object]] = []
    for name, rate in rates.items():
        row: dict[str, object] = {
            "shape": shape,
            "dataset": dataset,
            "system": name,
            "pairs": counts[name],
            "pairs_per_s": float(np.median(rate)),
            "seconds": seconds[name],
        }
        row |= {f"ratio_to_{other}": float(np.median(rate / rates[other])) for other in rates if other != name}
        rows.append(row)
        print(f"  {dataset} {name}: {np.median(rate):.4g} pairs/s on {counts[name]} pairs", flush=True)
    return rows


def _affordable(system: System, pairs: Sequence[Pair], seconds: float) -> int:
    system.predict(pairs[:_TRIED])
    begin = time.perf_counter()
    system.predict(pairs[:_TRIED])
    rate = min(_TRIED, len(pairs)) / (time.perf_counter() - begin)
    return int(min(len(pairs), max(_LEAST, rate * seconds)))


def _made(args: argparse.Namespace, name: str, checkpoint: Path, work: Path) -> str:
    """Makes what a system needs on disk, in a process of its own; why that cannot be done, empty where it can."""
    code = "import sys; from benchmarks.shape_table import make; make(*sys.argv[1:])"
    given = [name, str(checkpoint), str(work), str(args.batch_size), str(args.data or ""), args.dataset[0]]
    command = [sys.executable, "-c", code, *given, *args.precision]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.build_s, check=False)
    except subprocess.TimeoutExpired:
        return f"not made within {args.build_s:g} s (--build-s)"
    if not done.returncode:
        print(f"  {name}: made in {time.perf_counter() - begin:.0f} s", flush=True)
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1][:_LONGEST_REASON] if lines else f"exit code {done.returncode}"


def make(name: str, checkpoint: str, work: str, batch_size: str, data: str, dataset: str, *precisions: str) -> None:
    """Exports and quantises for one system, below ``work``."""
    folder = Path(work)
    if name != "package":
        calibration = load_pairs(dataset, Path(data) if data else None, _CALIBRATION, seed=1)
        rivals.build(name, Path(checkpoint), folder, int(batch_size), calibration)
    elif not (folder / "package" / "manifest.json").is_file():
        # Random weights say nothing that int8 could keep the order of; time is what is asked here.
        export_checkpoint(
            ExportConfig(
                checkpoint=checkpoint,
                output=folder / "package",
                precisions=precisions,
                max_length=MOST_TOKENS,
                parity=False,
                tune=False,
            )
        )


def _vocabulary(shape: str) -> Path | None:
    """BERT's own tokenizer, where it is on this machine."""
    if FULL_SIZES[shape].family != "bert":
        return None
    try:
        file = find_source(_REAL_VOCABULARY).directory / "tokenizer.json"
    except CheckpointNotFound:
        return None
    return file if file.is_file() else None


def as_markdown(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The table: pairs a second of every system, and how many times as many ours (int8, if there is one) are."""
    cells = {(row["shape"], row["dataset"], row["system"]): row for row in rows if "dataset" in row}
    systems = list(dict.fromkeys(str(system) for _, _, system in cells))
    ours = next((name for name in systems if name == f"{OURS}int8"), next(iter(systems), ""))
    others = [name for name in systems if not name.startswith(OURS)]
    titles = ["shape", "pairs", *[RIVALS.get(name, name) for name in systems]]
    titles += [f"{ours} / {RIVALS.get(name, name)}" for name in others]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for shape, dataset in dict.fromkeys((shape, dataset) for shape, dataset, _ in cells):
        found = {name: cells.get((shape, dataset, name)) for name in systems}
        line = [str(shape), str(dataset), *(_number(row, "pairs_per_s") for row in found.values())]
        line += [_number(found.get(ours), f"ratio_to_{name}") for name in others]
        lines.append(f"| {' | '.join(line)} |")
    left_out = [f"- {row['shape']}, {row['system']}: {row['left_out']}" for row in rows if row.get("left_out")]
    return [*lines, *([""] if left_out else []), *left_out]


def _number(row: Mapping[str, object] | None, key: str) -> str:
    value = None if row is None else row.get(key)
    return "-" if not isinstance(value, float) else f"{value:.3g}"
