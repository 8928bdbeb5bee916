"""The ladder of padded row lengths. A batch is one bucket: a number of rows, all padded to one length of the ladder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.base import Int32Array

_STEPS = ((8, 8), (64, 2), (128, 4), (512, 8), (1024, 32), (4096, 128))
"""(up to this length, step): fine where it is free and padding is everything, coarser where few rows ever are."""
_LAST_STEP = 512


@dataclass(frozen=True, slots=True)
class Bucket:
    """A fixed shape."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.rows * self.length


class Ladder:
    """Ascending row lengths; a row is padded to the first that holds it. The last one is the model's limit."""

    def __init__(self, lengths: tuple[int, ...], *, unpadded_from: int = 0) -> None:
        """Rows of ``unpadded_from`` tokens or more run alone and unpadded; every such length must be there."""
        if not lengths or lengths[0] < 1 or any(a >= b for a, b in itertools.pairwise(lengths)):
            raise ValueError(f"a ladder needs ascending positive lengths, got {lengths}")
        unpadded = [length for length in lengths if unpadded_from and length >= unpadded_from]
        if unpadded and unpadded != list(range(unpadded_from, lengths[-1] + 1)):
            raise ValueError(
                f"rows from {unpadded_from} tokens must not be padded, but lengths are missing: {unpadded}"
            )
        self.lengths = lengths
        self.unpadded_level = len(lengths) - len(unpadded)
        """The first level whose rows run alone."""
        self._array = np.array(lengths, dtype=np.int32)

    @classmethod
    def up_to(cls, max_length: int, *, unpadded_from: int = 0) -> Ladder:
        """The ladder of a model that reads at most ``max_length`` tokens: steps of 2 up to 64, then coarser.

        From ``unpadded_from`` on, unless that is 0, every length is a step of its own.
        """
        lengths: list[int] = []
        at = 0
        while at < max_length:
            step = next((step for limit, step in _STEPS if at < limit), _LAST_STEP)
            if unpadded_from and at + step >= unpadded_from:
                step = max(1, unpadded_from - at)
            at += step
            lengths.append(min(at, max_length))
        return cls(tuple(lengths), unpadded_from=unpadded_from)

    @classmethod
    def unpadded(cls, max_length: int) -> Ladder:
        """The ladder of rows that are not padded, which it only sorts: steps of 8 up to 128, then of a sixteenth."""
        lengths: list[int] = []
        while not lengths or lengths[-1] < max_length:
            at = lengths[-1] if lengths else 0
            lengths.append(min(max_length, at + max(8, at // 16)))
        return cls(tuple(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def levels(self, row_lengths: Int32Array) -> npt.NDArray[np.int64]:
        """[rows] index of the length that each row is padded to; rows must not be longer than the last."""
        return np.searchsorted(self._array, row_lengths)
