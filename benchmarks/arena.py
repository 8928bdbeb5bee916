"""How should ONNX Runtime keep memory? ``python -m benchmarks.arena --package models/scorer models/embedder``.

Every way runs the same batches of mixed shapes over all packages, on two threads, in a process of its own; ways take
turns. Prints what is resident after loading and after the batches, and the CPU time of a token: medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from pairwire.server.package import Package, read_package
from pairwire.server.runtime.ort import ort

from .report import print_machine, print_table, write_json

COLUMNS = ("memory", "loaded_mib", "resident_mib", "spread_mib", "cpu_us_per_token")
BATCH_TOKENS = 512
THREADS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How sessions keep memory."""

    shared: bool = False
    """One arena for all sessions."""
    as_requested: bool = False
    """The shared arena grows by what is asked for, not by powers of two."""
    plans: bool = False
    """A memory plan for each shape."""
    arena: bool = True
    shrink: bool = False
    """After each run."""


WAYS: Mapping[str, Way] = {
    "default of ONNX Runtime": Way(plans=True),
    "no plans": Way(),
    "no plans, shared arena (ours)": Way(shared=True),
    "no plans, shared arena, kSameAsRequested": Way(shared=True, as_requested=True),
    "plans, shared arena": Way(shared=True, plans=True),
    "no plans, no arena": Way(arena=False),
    "plans, no arena": Way(arena=False, plans=True),
    "no plans, arena shrunk after each run": Way(shrink=True),
}


def main() -> None:
    """Measures every way and prints one row each."""
    args = _arguments()
    print_machine()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(args.repeats):
        for name, way in WAYS.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(measure, (way, args.package, args.batches, args.seed)))
    rows = [
        {"memory": name, **{key: float(np.median([run[key] for run in runs])) for key in runs[0]}}
        for name, runs in found.items()
    ]
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def measure(way: Way, directories: list[Path], batches: int, seed: int) -> dict[str, float]:
    """One row, of this process. ``spread_mib``: how far resident memory still moves in the second half."""
    if way.shared:
        grow = ort.OrtArenaCfg({"arena_extend_strategy": int(way.as_requested)})
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(memory, grow)
    packages = [read_package(directory) for directory in directories]
    sessions = [_session(way, package) for package in packages]
    limits = [package.manifest.max_length for package in packages]
    loaded = _resident_mib()
    draws = random.Random(seed)
    work = [(index, *_shape(draws, limits[index])) for index in draws.choices(range(len(packages)), k=batches)]
    halves = work[: batches // 2], work[batches // 2 :]
    _run(way, sessions, halves[0])
    began = time.process_time()
    curve = _run(way, sessions, halves[1])
    tokens = sum(rows * length for _, rows, length in halves[1])
    return {
        "loaded_mib": loaded,
        "resident_mib": _resident_mib(),
        "spread_mib": max(curve) - min(curve),
        "cpu_us_per_token": 1e6 * (time.process_time() - began) / tokens,
    }


def _session(way: Way, package: Package) -> ort.InferenceSession:
    variant = package.variant()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = way.plans
    options.enable_cpu_mem_arena = way.arena
    if way.shared:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return ort.InferenceSession(
        str(package.graph_file(variant)),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(variant.disabled_optimizers),
    )


def _shape(draws: random.Random, max_length: int) -> tuple[int, int]:
    """Rows and length; half of the lengths are below the geometric mean of 8 and the longest."""
    length = round(8 * (max_length / 8) ** draws.random())
    return draws.randint(1, max(1, BATCH_TOKENS // length)), length


def _run(way: Way, sessions: list[ort.InferenceSession], work: list[tuple[int, int, int]]) -> list[float]:
    """Runs all batches on two threads; returns the resident memory in MiB after each of them."""
    options = ort.RunOptions()
    if way.shrink:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    waiting, lock, curve = iter(work), threading.Lock(), []

    def worker() -> None:
        while True:
            with lock:
                batch = next(waiting, None)
            if batch is None:
                return
            index, rows, length = batch
            sessions[index].run(None, _feeds(sessions[index], rows, length), options)
            curve.append(_resident_mib())

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(worker) for _ in range(THREADS)]:
            done.result()
    return curve


def _feeds(session: ort.InferenceSession, rows: int, length: int) -> dict[str, npt.NDArray[np.int64]]:
    values = {"input_ids": 1, "attention_mask": 1, "token_type_ids": 0}
    return {node.name: np.full((rows, length), values[node.name], np.int64) for node in session.get_inputs()}


def _resident_mib() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arena", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", nargs="+", type=Path, required=True, metavar="DIR", help="model packages")
    parser.add_argument("--batches", type=int, default=1000, help="batches of each process; default 1000")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each way; default 3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    return parser.parse_args()


if __name__ == "__main__":
    main()
