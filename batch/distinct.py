"""Equal items of a shard are computed once: what is new in a window, and where every other result is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .answers import Answers, Shape
from .job import Job
from .texts import Item

_DIGEST_BYTES = 16


class Distinct:
    """The distinct items of one shard and their answers. Kept by digest: texts are not retained."""

    def __init__(self, job: Job, shape: Shape) -> None:
        self._numbers: dict[bytes, int] = {}
        self._answers = Answers.empty(job, shape, 0)

    def split(self, items: Sequence[Item]) -> tuple[list[Item], npt.NDArray[np.intp]]:
        """The items that are new, and for each item the number of its answer in the shard."""
        new: list[Item] = []
        at = np.empty(len(items), dtype=np.intp)
        for index, item in enumerate(items):
            digest = _digest(item)
            number = self._numbers.get(digest)
            if number is None:
                number = self._numbers[digest] = len(self._numbers)
                new.append(item)
            at[index] = number
        return new, at

    def add(self, answers: Answers) -> None:
        """The answers of what was new, window after window."""
        begin = len(self._answers.values)
        self._answers.values = np.concatenate([self._answers.values, answers.values])
        self._answers.failed.update({begin + item: reason for item, reason in answers.failed.items()})

    def taken(self, at: npt.NDArray[np.intp]) -> Answers:
        """The answers of those numbers; all of them have been added."""
        return self._answers.taken(at)


def _digest(item: Item) -> bytes:
    if isinstance(item, str):
        return hashlib.blake2b(item.encode(), digest_size=_DIGEST_BYTES).digest()
    first, second = item[0].encode(), item[1].encode()
    found = hashlib.blake2b(len(first).to_bytes(8, "little"), digest_size=_DIGEST_BYTES)
    found.update(first)
    found.update(second)
    return found.digest()
