"""What a model made of items: numbers by item, why some have none, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .job import Job, Task

SparseRow = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]
"""Indices, ascending, and values."""

DTYPES: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "binary": np.uint8,
}
"""Of vectors, by encoding."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the results of a job look like, whatever the texts are."""

    labels: tuple[str, ...] = ()
    """score: one for each number of an item."""
    width: int = 1
    """Numbers of an item: labels, or dimensions (for binary: bytes)."""
    dtype: str = "float32"


@dataclass(slots=True)
class Answers:
    """By item, in the order in which they were asked."""

    values: npt.NDArray[Any]
    """[items, width]; for sparse vectors [items] objects: a `SparseRow` each. Of items that failed anything."""
    failed: dict[int, str] = field(default_factory=dict)
    """Item -> why there is no result."""
    usages: list[int] = field(default_factory=list)
    """Tokens, special ones included, request by request or slice by slice: threads append to it."""
    padding: list[int] = field(default_factory=list)
    """Tokens of padding that were computed, batch by batch: threads append to it."""

    @property
    def tokens(self) -> int:
        """Tokens of all of them, special tokens included."""
        return sum(self.usages)

    @classmethod
    def empty(cls, job: Job, shape: Shape, items: int) -> Self:
        """Room for so many items."""
        if job.task is Task.EMBED_SPARSE:
            return cls(np.empty(items, dtype=object))
        return cls(np.zeros((items, shape.width), dtype=shape.dtype))

    def taken(self, at: Sequence[int] | npt.NDArray[np.intp]) -> Answers:
        """Those at some places, which may be the same one several times; what it cost is left out."""
        failed = {}
        if self.failed:
            failed = {to: self.failed[each] for to, each in enumerate(map(int, at)) if each in self.failed}
        return Answers(self.values[np.asarray(at, dtype=np.intp)], failed)


def vector_width(dimensions: int, encoding: str) -> int:
    """Numbers of an encoded vector: a byte holds eight dimensions of a binary one."""
    return -(-dimensions // 8) if encoding == "binary" else dimensions
