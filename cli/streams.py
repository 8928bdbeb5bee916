"""The standard streams, made fit for texts of every language and for a caller that has closed them."""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """What the encoding of a stream lacks is written as an escape, and a closed stream takes nobody else's number.

    A program may be started without the descriptors 0, 1 or 2. The next file that is opened would get such a number,
    and a library that prints would write into it.
    """
    _fill_descriptors()
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as the process
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fill_descriptors() -> None:
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


class _Closed(io.TextIOBase):
    """A stdout that nobody reads: whoever prints learns it, as from a pipe whose reader has gone."""

    def write(self, text: str) -> int:
        """Refuses."""
        raise BrokenPipeError

    def writable(self) -> bool:
        """Says so of the stream; each write fails."""
        return True
