"""Dense rows of a sparse encoder -> the weights above zero, row after row (CSR)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInput
from ...runtime.base import Float32Array, UInt32Array

MOST_BYTES = 256 << 20
"""Of the dense matrix that a call's sparse vectors are taken from: 2,198 texts with a vocabulary of 30,522 tokens."""
INLINE_ROWS = 32
"""This many rows are looked through on the event loop, in some 0.6 ms (30,522 tokens, one core); 2,000 take 50 ms."""


def check_size(rows: int, dimensions: int) -> None:
    """Refuses a call whose dense matrix would take too much memory.

    Raises:
        InvalidInput: the sentence says how many texts one call may have.
    """
    if rows * dimensions * 4 > MOST_BYTES:
        raise InvalidInput(
            "texts",
            f"{rows} texts of {dimensions} weights each would take {rows * dimensions * 4 >> 20} MiB, at most"
            f" {MOST_BYTES >> 20} MiB may; send at most {MOST_BYTES // (dimensions * 4)} texts in one call",
        )


def to_sparse(dense: Float32Array, most: int = 0) -> tuple[UInt32Array, Float32Array, UInt32Array]:
    """Indices [weights], values [weights] and counts [rows] of what is above zero in ``dense`` [rows, dimensions].

    Indices ascend within a row. Of each row at most the ``most`` largest weights are kept (0: all), and of equal ones
    those with the lower index.
    """
    indices, values = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)]
    for row in dense:  # taken from the whole at once, values would hold the interpreter for 10 ns each
        kept = _row(row, most)
        indices.append(kept.astype(np.uint32))
        values.append(row[kept])
    counts = np.array([len(part) for part in indices[1:]], np.uint32)
    return np.concatenate(indices), np.concatenate(values), counts


def _row(row: Float32Array, most: int) -> npt.NDArray[np.integer]:
    """Ascending indices of the weights that are kept."""
    return largest(np.flatnonzero(row > 0), row, most)


def largest(above: npt.NDArray[np.integer], row: Float32Array, most: int) -> npt.NDArray[np.integer]:
    """Of ascending indices those of the ``most`` largest weights of ``row`` (0: all); of equal ones the lower ones."""
    if not most or len(above) <= most:
        return above
    weights = row[above]
    least = np.partition(weights, len(weights) - most)[len(weights) - most]  # the smallest that is kept
    larger, equal = np.flatnonzero(weights > least), np.flatnonzero(weights == least)
    kept: npt.NDArray[np.integer] = above[np.sort(np.concatenate([larger, equal[: most - len(larger)]]))]
    return kept
