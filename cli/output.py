"""What commands print: numbers and JSON on stdout, tables for people, a progress bar on a terminal's stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pairwire.client.results import Float32Array

SHOW_AFTER_S = 1.0
"""A progress bar appears when a command has taken so long: short ones stay quiet."""


Advance = Callable[[int], object]
"""Moves a progress bar by this many records."""


@contextmanager
def progress(unit: str, total: int | None, *, printing: bool = True) -> Iterator[Advance]:
    """A progress bar on stderr, where that is a terminal and no results are ``printing`` on the same one."""
    if not sys.stderr.isatty() or (printing and sys.stdout.isatty()):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, unit_scale=True, delay=SHOW_AFTER_S, file=sys.stderr, leave=False) as bar:
        yield lambda count: bar.update(count)


def json_line(value: object) -> str:
    """One line of JSON, with text as it is where stdout can show it, else as escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(", ", ": "))
    return text


def short(number: np.float32 | float) -> float:
    """The float of the shortest decimal that is this float32: 0.1 and not 0.10000000149011612."""
    return float(str(np.float32(number)))


def shorts(vector: Float32Array) -> list[float]:
    """``short`` of each number of a row."""
    return [float(text) for text in vector.astype(str)]


def one_line(text: str) -> str:
    """Text that cannot break a table: runs of white space become one space."""
    return " ".join(text.split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Columns under their heads, two spaces between them; ``right`` are the columns that align right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    aligned = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def size(count: int) -> str:
    """Bytes for people, e.g. ``22.9 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
