"""Writes a .npy file row by row, without knowing how many rows there will be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pairwire.client.results import VectorArray

from .exits import BadInput


@contextmanager
def open_npy(path: Path, dtype: str = "<f4") -> Iterator[Callable[[VectorArray], None]]:
    """A function that appends rows [rows, width], as ``dtype`` in the file, which appears, complete, when all is done.

    Raises:
        BadInput: the file cannot be written.
    """
    if path.suffix != ".npy":
        raise BadInput(f"{path}: the file holds a numpy array, call it {path.with_suffix('.npy').name}")
    partial = path.with_name(f".{path.name}.partial")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    rows, width = 0, 0

    def append(vectors: VectorArray) -> None:
        nonlocal rows, width
        if not rows:
            width = vectors.shape[1]
            _write_header(file, dtype, 0, width)
        file.write(np.ascontiguousarray(vectors, dtype).tobytes())
        rows += len(vectors)

    try:
        with file:
            yield append
            # numpy leaves room in the header for the first dimension to grow, so the new one is as long as the old.
            file.seek(0)
            _write_header(file, dtype, rows, width)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_header(file: BinaryIO, dtype: str, rows: int, width: int) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, header)
