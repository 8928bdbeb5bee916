"""Rows of one request or of a part of it: tokenised and cut, not yet padded."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.base import Int32Array
from .special_tokens import Row, SpecialTokens

_NONE: Int32Array = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows that were asked for together, tokenised and cut, ready to be assembled in any grouping."""

    special: SpecialTokens
    rows: Sequence[Row]
    """One for each input, in input order."""
    lengths: Int32Array
    """[rows] tokens after truncation, special tokens included."""
    truncated: Int32Array
    """Ascending indices of the rows that were cut."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum(dtype=np.int64))

    def subset(self, indices: Sequence[int]) -> EncodedRows:
        """Some of the rows, in the given order; which of them were cut is left out."""
        rows = [self.rows[index] for index in indices]
        return EncodedRows(self.special, rows, self.lengths[list(indices)], _NONE)


def join(parts: Sequence[EncodedRows]) -> EncodedRows:
    """The rows of at least one part, one after the other."""
    if len(parts) == 1:
        return parts[0]
    begins = [0, *itertools.accumulate(len(part) for part in parts[:-1])]
    return EncodedRows(
        special=parts[0].special,
        rows=[row for part in parts for row in part.rows],
        lengths=np.concatenate([part.lengths for part in parts]),
        truncated=np.concatenate([part.truncated + begin for part, begin in zip(parts, begins, strict=True)]).astype(
            np.int32
        ),
    )
