"""Runs the unit suite several times, on a quiet machine or a busy one, and says how each run ended.

`make test-repeat N=10 BUSY=1`, or `python -m tests.repeat --runs 10 --busy 2 -- -n 2 --dist worksteal`. What stands
behind `--` goes to pytest. Exit code 1 if a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import processes

_BUSY = (sys.executable, "-c", "while True: pass")
_OUTCOME = re.compile(r"^(?:=+ )?(\d+ (?:passed|failed|error).*? in [\d.]+s.*?)(?: =+)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. ``cpu_s`` is user and system time of the run and all that it started."""

    code: int
    sentence: str
    cpu_s: float
    wall_s: float


def run(arguments: Sequence[str], log: Path) -> Outcome:
    """Runs pytest once; what it writes goes to ``log``."""
    command = [sys.executable, "-m", "pytest", *arguments]
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = _OUTCOME.findall(log.read_text(encoding="utf-8", errors="replace"))
    return Outcome(
        code=code,
        sentence=said[-1] if said else "no closing line",
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        wall_s=time.perf_counter() - begun,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, and prints a line for each run; what failed keeps its log."""
    parser = argparse.ArgumentParser(prog="python -m tests.repeat", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="how many runs (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="processes that each keep a core busy (default: none)")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    asked = parser.parse_args(arguments)
    logs = Path(tempfile.mkdtemp(prefix="pairwire-tests-"))
    failed = 0
    with contextlib.ExitStack() as busy:
        for _ in range(asked.busy):
            busy.enter_context(processes.started(_BUSY))
        for number in range(1, asked.runs + 1):
            log = logs / f"run-{number}.log"
            done = run(asked.pytest, log)
            failed += done.code != 0
            spent = f"{done.wall_s:.0f} s, {done.cpu_s:.0f} CPU s"
            print(f"run {number}: exit code {done.code}, {done.sentence}; {spent}", flush=True)
            if done.code:
                print(f"  see {log}", flush=True)
    print(f"{asked.runs - failed} of {asked.runs} runs passed, {asked.busy} busy processes")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
