"""Programs that tests start: whatever happens to the test, they end and their pipes are closed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

MAIN = (sys.executable, "-m", "pairwire.cli.main")
"""The command ``pairwire``."""

_INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pairwire.cli.main import main
sys.exit(main())
"""

INTERRUPTIBLE_MAIN = (sys.executable, "-c", _INTERRUPTIBLE)
"""As MAIN, but Ctrl-C works: a run in a shell's background ignores SIGINT, and its children inherit that."""


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Starts a program (``options`` as of subprocess.Popen); it is killed at the end of the block if it still runs."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()  # does nothing to a program that has ended
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was still to be written
                    pipe.close()


@contextlib.asynccontextmanager
async def started_here(command: Sequence[str], **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """As ``started``, for the running event loop."""
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # reads the pipes to their ends: only then does the loop close them
