"""What C code writes to a file descriptor of the process, kept: ONNX Runtime tells some things nowhere else."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept(descriptor: int) -> Iterator[list[str]]:
    """What is written to 1 (stdout) or 2 (stderr) goes into the list, as one text, when the block ends.

    It is the descriptor of the whole process: use it while nothing is served. The list stays empty where the process
    has no such descriptor.
    """
    found: list[str] = []
    stream = sys.stdout if descriptor == 1 else sys.stderr
    if stream is not None:
        stream.flush()
    try:
        before = os.dup(descriptor)
    except OSError:
        yield found
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), descriptor)
            try:
                yield found
            finally:
                os.dup2(before, descriptor)
                file.seek(0)
                found.append(file.read().decode(errors="replace"))
    finally:
        os.close(before)
