"""Things in the order of their times, any of which may be struck off early."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

_SPARE = 64
"""Entries of removed items that the heap may hold before it is swept, besides as many as there are items."""


class Agenda(Generic[T]):
    """Items by (time, sequence), the smallest first. Every step takes O(log items), averaged over many.

    A removed item leaves its entry in the heap until that comes to the front or until such entries are the majority.
    """

    __slots__ = ("_heap", "_items")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._items: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._items)

    def add(self, time: float, sequence: int, item: T) -> None:
        """Enters an item; no two may ever have the same ``sequence``."""
        self._items[sequence] = item
        heapq.heappush(self._heap, (time, sequence))

    def remove(self, sequence: int) -> bool:
        """Strikes an item off; False if it is not there."""
        if self._items.pop(sequence, None) is None:
            return False
        if len(self._heap) > 2 * len(self._items) + _SPARE:
            self._heap = [entry for entry in self._heap if entry[1] in self._items]
            heapq.heapify(self._heap)
        return True

    def first(self) -> T | None:
        """The item whose turn is next; None where there is none."""
        heap, items = self._heap, self._items
        while heap:
            item = items.get(heap[0][1])
            if item is not None:
                return item
            heapq.heappop(heap)
        return None
