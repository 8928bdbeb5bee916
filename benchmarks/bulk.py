"""Bulk runs: as fast as the engine, in flat memory, and the same bytes however often they are killed.

    python -m benchmarks.bulk --package models/demo --data DATA --rows 100000     rate, in turns with the engine
    python -m benchmarks.bulk --package models/demo --rows 200000 --kills 20      kills at random moments
    python -m benchmarks.bulk --package models/demo --rows 1000000 --memory       memory, over short pairs

Pairs are drawn from STS-B where DATA has it, else from the built-in texts; none is there twice. It exits with 1 where
the bytes differ, more work was done than one pass and a shard for each kill, or memory grew by more than 64 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from pairwire.batch import Job, planned
from pairwire.batch.lanes import Where
from pairwire.batch.run import BulkConfig, run_bulk
from pairwire.batch.sharing import batch_config
from pairwire.server.engine import Engine

from .datasets import load_pairs
from .report import print_machine, print_table, write_json

EXIT_WRONG = 1
_IN_FLIGHT = 4
_CALL = 256
_MOST_GROWTH = 64 << 20
_WRITE_ROWS = 50_000
_WORKING = 0.75
"""Share of the kills that come while something is computed; the others may come while a run starts."""
_LOOK_S = 0.01
_WARM_SHARE = 0.25
"""Of a run's samples: the first windows fill what memory it keeps."""

Pair = tuple[str, str]


def pairs_of(texts: Sequence[Pair], rows: int, *, words: int = 0, seed: int = 0) -> Iterator[Pair]:
    """Different pairs of the given first and second texts, cut to some ``words`` where that is not 0."""
    draws = random.Random(seed)
    for number in range(rows):
        first, second = draws.choice(texts)[0], draws.choice(texts)[1]
        if words:
            first, second = (" ".join(each.split()[: draws.randint(1, words)]) for each in (first, second))
        yield f"{number} {first}" if words else first, f"{second} {number}"


def write_pairs(path: Path, pairs: Iterator[Pair]) -> None:
    """Parquet, some rows at a time."""
    schema = pa.schema([("first", pa.string()), ("second", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        while some := [pair for _, pair in zip(range(_WRITE_ROWS), pairs, strict=False)]:
            columns = {"first": [first for first, _ in some], "second": [second for _, second in some]}
            writer.write_table(pa.table(columns, schema=schema))


def config_of(package: Path, source: Path, output: Path, shard_rows: int) -> BulkConfig:
    """A run of scores."""
    return BulkConfig(
        job=Job.of("score"), inputs=[str(source)], output=output, where=Where(package=package), shard_rows=shard_rows
    )


async def engine_rate(package: Path, pairs: Sequence[Pair]) -> float:
    """Pairs a second of the engine in process: texts in, scores out, four calls in flight."""
    async with await Engine.open(package, config=batch_config()) as engine:
        began = time.monotonic()
        limit = asyncio.Semaphore(_IN_FLIGHT)

        async def call(some: Sequence[Pair]) -> None:
            try:
                await engine.score(some)
            finally:
                limit.release()

        async with asyncio.TaskGroup() as group:
            for at in range(0, len(pairs), _CALL):
                await limit.acquire()
                group.create_task(call(pairs[at : at + _CALL]))
        return len(pairs) / (time.monotonic() - began)


def rates(package: Path, source: Path, shard_rows: int, turns: int) -> list[dict[str, object]]:
    """The engine and a bulk run, one after the other, ``turns`` times."""
    table = pq.read_table(source)
    pairs = list(zip(table["first"].to_pylist(), table["second"].to_pylist(), strict=True))
    found: list[dict[str, object]] = []
    for turn in range(turns):
        engine = asyncio.run(engine_rate(package, pairs))
        with tempfile.TemporaryDirectory(dir=source.parent) as output:
            summary = run_bulk(config_of(package, source, Path(output) / "out", shard_rows))
        row = {"turn": turn, "rows": summary.rows, "engine_per_s": engine, "bulk_per_s": summary.rows_per_s}
        found.append({**row, "ratio": summary.rows_per_s / engine, "padding": summary.padding})
    return found


def child(package: Path, source: Path, output: Path, shard_rows: int, log: Path) -> None:
    """A run that writes down what it computes, window by window."""
    submit = planned.PlannedModel.submit

    def logged(model: planned.PlannedModel, begun: planned.Begun) -> None:
        with log.open("a") as file:
            file.write(f"{sum(len(at) for at, _ in begun.batches)}\n")
        submit(model, begun)

    planned.PlannedModel.submit = logged  # type: ignore[method-assign, assignment]
    run_bulk(config_of(package, source, output, shard_rows))


def _started(package: Path, source: Path, output: Path, shard_rows: int, log: Path) -> subprocess.Popen[bytes]:
    arguments = ["--package", package, "--child", source, output, log, "--shard-rows", shard_rows]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.bulk", *map(str, arguments)])


def kill_often(package: Path, source: Path, shard_rows: int, kills: int, seed: int) -> dict[str, object]:
    """One whole run, and one that is killed at random moments of about as much time as the whole one took."""
    draws = random.Random(seed)
    folder = source.parent
    began = time.monotonic()
    whole_log, log = folder / "whole.log", folder / "killed.log"
    if _started(package, source, folder / "whole", shard_rows, whole_log).wait():
        raise SystemExit("the whole run failed")
    seconds, done = time.monotonic() - began, 0
    for _ in range(kills):
        process = _started(package, source, folder / "killed", shard_rows, log)
        if draws.random() < _WORKING:
            _wait_for_work(process, log)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draws.uniform(0, seconds / kills))
        done += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if _started(package, source, folder / "killed", shard_rows, log).wait():
        raise SystemExit("the run failed after it had been killed")
    computed, once = (sum(map(int, path.read_text().split())) for path in (log, whole_log))
    return {
        "rows": once,
        "kills": done,
        "same_bytes": digests(folder / "whole") == digests(folder / "killed"),
        "computed": computed,
        "at_most": once + done * shard_rows,
    }


def _wait_for_work(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until another window is computed: starting takes as long as many shards."""
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (not log.exists() or log.stat().st_size == before):
        time.sleep(_LOOK_S)


def digests(directory: Path) -> dict[str, str]:
    """sha256 of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def memory(package: Path, source: Path, shard_rows: int, every_s: float) -> dict[str, object]:
    """Resident memory of a run: the most in the quarter after its start, and at its end."""
    samples = []
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        process = _started(package, source, Path(folder) / "out", shard_rows, Path(folder) / "log")
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                samples.append(watched.memory_info().rss)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=every_s)
        if process.returncode:
            raise SystemExit("the run failed")
    at = max(1, round(len(samples) * _WARM_SHARE))
    early, late = max(samples[at : 2 * at], default=0), statistics.median(samples[-at:])
    return {"early_mib": early / 2**20, "late_mib": late / 2**20, "most_mib": max(samples) / 2**20}


def main() -> int:
    """Prints one table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True, help="a cross-encoder")
    parser.add_argument("--data", type=Path, help="folder with stsb-en/")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--shard-rows", type=int, default=0, help="default: that of a run, or a fortieth of --kills' rows"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.package, args.child[0], args.child[1], args.shard_rows, args.child[2])
        return 0
    texts = load_pairs("stsb" if args.data else "builtin", args.data)
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.parquet"
        write_pairs(source, pairs_of(texts, args.rows, words=6 if args.memory else 0, seed=args.seed))
        return _measure(args, source)


def _measure(args: argparse.Namespace, source: Path) -> int:
    if args.kills:
        shard_rows = args.shard_rows or max(1, args.rows // 40)
        found = kill_often(args.package, source, shard_rows, args.kills, args.seed)
        rows, right = [found], bool(found["same_bytes"]) and int(str(found["computed"])) <= int(str(found["at_most"]))
    elif args.memory:
        found = memory(args.package, source, args.shard_rows, every_s=1.0)
        rows = [found]
        right = float(str(found["late_mib"])) - float(str(found["early_mib"])) < _MOST_GROWTH / 2**20
    else:
        rows, right = rates(args.package, source, args.shard_rows, args.turns), True
    print_table(rows, list(rows[0]))
    write_json(args.json, rows)
    return 0 if right else EXIT_WRONG


if __name__ == "__main__":
    sys.exit(main())
