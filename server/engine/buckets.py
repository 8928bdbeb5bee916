"""The ladder of padded row lengths. A batch is one bucket: so many rows, all padded to one length of the ladder."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.base import Int32Array

_STEPS = ((512, 8), (1024, 32), (4096, 128))
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

    def __init__(self, lengths: tuple[int, ...]) -> None:
        if not lengths or lengths[0] < 1 or any(a >= b for a, b in itertools.pairwise(lengths)):
            raise ValueError(f"a ladder needs ascending positive lengths, got {lengths}")
        self.lengths = lengths
        self._array = np.array(lengths, dtype=np.int32)

    @classmethod
    def up_to(cls, max_length: int) -> Ladder:
        """The ladder of a model that reads at most ``max_length`` tokens: steps of 8 up to 512, coarser beyond."""
        lengths: list[int] = []
        at = 0
        while at < max_length:
            at += next((step for limit, step in _STEPS if at < limit), _LAST_STEP)
            lengths.append(min(at, max_length))
        return cls(tuple(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def levels(self, row_lengths: Int32Array) -> npt.NDArray[np.int64]:
        """[rows] index of the length that each row is padded to; rows must not be longer than the last."""
        return np.searchsorted(self._array, row_lengths)
