"""A `pairwire serve` process of a benchmark's own: started on a free loopback port, stopped by SIGTERM."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY = re.compile(r"^pairwire: serving on (?P<address>\S+?),[^\n]*?(?:HTTP on (?P<http>\S+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and its process id."""

    address: str
    pid: int
    http: str = ""
    """Where HTTP is served; empty where it is not."""


def started(packages: Sequence[Path], options: Sequence[str] = ()) -> tuple[Server, subprocess.Popen[str]]:
    """Serves the packages; to be stopped, and its stdout closed, by who asked for it.

    Raises:
        SystemExit: the server did not start; with what it wrote.
    """
    command = [
        sys.executable,
        "-m",
        "pairwire.cli.main",
        "serve",
        *map(str, packages),
        "--port",
        "0",
        "--metrics-port",
        "-1",
    ]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    written = ""
    for line in process.stdout:
        written += line
        if match := READY.search(line):
            return Server(address=match["address"], pid=process.pid, http=match["http"] or ""), process
    process.stdout.close()
    raise SystemExit(f"the server did not start (exit code {process.wait()}):\n{written}")


@contextmanager
def serving(packages: Sequence[Path], options: Sequence[str] = ()) -> Iterator[Server]:
    """Serves the packages until the block ends.

    Raises:
        SystemExit: the server did not start, with what it wrote; or did not stop as it should.
    """
    server, process = started(packages, options)
    assert process.stdout is not None
    try:
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        process.stdout.close()
    if code != 0:
        raise SystemExit(f"the server stopped with exit code {code} instead of 0")
