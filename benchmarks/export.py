"""How long an export takes, and how much memory, step by step.

``python -m benchmarks.export --shape bert-base [--json FILE] [-- OPTIONS of pairwire export]``

Exports a checkpoint of that shape with random weights (`benchmarks/full_size.py`), or the one given by
``--checkpoint``, by the command that a person would type. Memory is the resident memory of that process and all its
children, added up 20 times a second; pages of files that several of them map are counted in each. Seconds of the
process's CPU time stand next to the wall's: where others load the machine too, the first say what the export costs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from .full_size import FULL_SIZES, save_full_size
from .report import print_machine, print_table, write_json

COLUMNS = ("step", "seconds", "cpu_s", "peak_mib", "detail")
SAMPLE_S = 0.05
_LINE = re.compile(r"\s*(?P<seconds>\d+\.\d) s  (?P<step>[^:\n]+)(?:: (?P<detail>.*))?")


@dataclass(slots=True)
class Usage:
    """What a process and its children took."""

    cpu_s: float = 0.0
    peak_bytes: int = 0
    peak_since_bytes: int = 0
    """The peak since `Watch.since` was last asked."""


class Watch:
    """Samples a process and its children until it ends."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._usage = Usage()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def since(self) -> Usage:
        """Until now; starts the next step's peak."""
        usage = self._usage
        found = Usage(usage.cpu_s, usage.peak_bytes, usage.peak_since_bytes)
        usage.peak_since_bytes = 0
        return found

    def close(self) -> Usage:
        """The whole."""
        self._ended.set()
        self._thread.join()
        return self._usage

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            try:
                tree = [self._process, *self._process.children(recursive=True)]
                resident = sum(each.memory_info().rss for each in tree)
                times = self._process.cpu_times()
            except psutil.Error:  # one of them has just ended
                continue
            usage = self._usage
            usage.cpu_s = times.user + times.system + times.children_user + times.children_system
            usage.peak_bytes = max(usage.peak_bytes, resident)
            usage.peak_since_bytes = max(usage.peak_since_bytes, resident)


def main() -> None:
    """Makes the checkpoint, exports it, prints what each step took."""
    args = _arguments()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="pairwire-benchmark-", dir=args.work) as work:
        checkpoint = args.checkpoint or _saved(args.shape, Path(work) / "checkpoint")
        subject = args.checkpoint or args.shape
        rows = measure(checkpoint, Path(work) / "package", args.options)
        rows = [{"subject": subject, **row} for row in rows]
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def measure(checkpoint: str, package: Path, options: Sequence[str]) -> list[dict[str, object]]:
    """A row for each step of the export, and one for all of it.

    Raises:
        SystemExit: the export failed.
    """
    command = [sys.executable, "-m", "pairwire.cli.main", "export", checkpoint, "-o", str(package), *options]
    rows: list[dict[str, object]] = []
    started = time.perf_counter()
    last_cpu_s = 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stderr is not None
        watch = Watch(process.pid)
        for line in process.stderr:
            found = _LINE.fullmatch(line.rstrip())
            sys.stderr.write(line)
            if found is None:
                continue
            usage = watch.since()
            rows.append(_row(found["step"], float(found["seconds"]), usage.cpu_s - last_cpu_s, usage.peak_since_bytes))
            rows[-1]["detail"] = found["detail"] or ""
            last_cpu_s = usage.cpu_s
        code = process.wait()
    seconds = time.perf_counter() - started
    usage = watch.close()
    if code:
        raise SystemExit(f"the export failed with exit code {code}")
    return [*rows, _row("all", seconds, usage.cpu_s, usage.peak_bytes)]


def _row(step: str, seconds: float, cpu_s: float, peak_bytes: int) -> dict[str, object]:
    return {"step": step, "seconds": round(seconds, 2), "cpu_s": round(cpu_s, 2), "peak_mib": round(peak_bytes / 2**20)}


def _saved(shape: str, directory: Path) -> str:
    """Made in a process of its own: its memory is none of the export's."""
    code = "import sys; from benchmarks.export import save; save(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, shape, str(directory)], check=True)
    return str(directory)


def save(shape: str, directory: str) -> None:
    """Writes the checkpoint and says how large it is."""
    parameters = save_full_size(FULL_SIZES[shape], Path(directory))
    print(f"{shape}: {parameters / 1e6:.0f} M parameters", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=(__doc__ or "").split("\n")[0])
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--shape", choices=list(FULL_SIZES), help="a checkpoint as large as that one, random weights")
    subject.add_argument("--checkpoint", metavar="CHECKPOINT", help="any other one")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where files are made (default: the system's choice)")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("options", nargs="*", metavar="OPTION", help="of pairwire export, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
