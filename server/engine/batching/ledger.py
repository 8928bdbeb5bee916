"""Work that waits, in the order in which it is due: how much is due by when, and what deadlines leave room for.

Entries are kept in short sorted chunks, each with its sums, so that every question and every change looks at one chunk
and at the sums of the others, however many requests wait.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

_CHUNK = 64
"""Entries of a chunk, at most twice as many."""
_SAME_SPEED = 0.03
"""A chunk's slack is worked out again where the speed has changed by more than this."""

Key = tuple[float, int]
"""(when it is due, number): no two entries have the same."""


@dataclass(eq=False, slots=True)
class _Chunk:
    keys: list[Key] = field(default_factory=list)
    seconds: dict[Key, float] = field(default_factory=dict)
    deadlines: dict[Key, float] = field(default_factory=dict)
    """Of those that have one."""
    total: float = 0.0
    slack: float = math.inf
    speed: float = 0.0
    """The speed for which ``slack`` was worked out; 0 where it has to be."""

    def changed(self) -> None:
        self.total = math.fsum(self.seconds.values())
        self.speed = 0.0

    def slack_at(self, speed: float) -> float:
        if not self.deadlines:
            return math.inf
        if abs(self.speed - speed) > _SAME_SPEED * speed:
            self.slack, self.speed = self.slack_after((-math.inf, 0), speed), speed
        return self.slack

    def slack_after(self, key: Key, speed: float) -> float:
        """Least of (seconds of work that the machine does until the deadline - those up to it), of what comes later."""
        before, least = 0.0, math.inf
        for each in self.keys:
            before += self.seconds[each]
            deadline = self.deadlines.get(each)
            if deadline is not None and each > key:
                least = min(least, deadline * speed - before)
        return least


class Ledger:
    """Seconds of work by when they are due. Pure bookkeeping: no clock, no policy."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._last: list[Key] = []  # the last key of each chunk
        self.total = 0.0
        """Seconds of all entries."""

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def __iter__(self) -> Iterator[Key]:
        """Keys in the order in which they are due."""
        for chunk in self._chunks:
            yield from chunk.keys

    def add(self, key: Key, seconds: float, deadline: float = math.inf) -> None:
        """Enters work; no other may have the same key."""
        if not self._chunks:
            self._chunks.append(_Chunk())
            self._last.append(key)
        at = min(bisect_left(self._last, key), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk.keys, key)
        chunk.seconds[key] = seconds
        if deadline < math.inf:
            chunk.deadlines[key] = deadline
        chunk.changed()
        if len(chunk.keys) > 2 * _CHUNK:
            self._split(at)
        self._last[at] = self._chunks[at].keys[-1]
        self._sum()

    def change(self, key: Key, seconds: float) -> None:
        """What is left of an entry."""
        chunk = self._chunks[bisect_left(self._last, key)]
        chunk.seconds[key] = seconds
        chunk.changed()
        self._sum()

    def remove(self, key: Key) -> None:
        """Strikes an entry off."""
        at = bisect_left(self._last, key)
        chunk = self._chunks[at]
        del chunk.keys[bisect_left(chunk.keys, key)], chunk.seconds[key]
        chunk.deadlines.pop(key, None)
        if chunk.keys:
            chunk.changed()
            self._last[at] = chunk.keys[-1]
        else:
            del self._chunks[at], self._last[at]
        self._sum()

    def until(self, due: float) -> float:
        """Seconds of what is due by then."""
        seconds = 0.0
        for chunk in self._chunks:
            if chunk.keys[0][0] > due:
                break
            if chunk.keys[-1][0] <= due:
                seconds += chunk.total
            else:
                end = bisect_right(chunk.keys, (due, 1 << 62))
                return seconds + math.fsum(chunk.seconds[key] for key in chunk.keys[:end])
        return seconds

    def slack_after(self, due: float, speed: float) -> float:
        """How many seconds of work may come before all that is due later than ``due``, so that it meets its deadlines.

        As if the clock stood at 0 now: take what the machine has done until now, ``now * speed``, off. ``speed`` is how
        many seconds of work the machine does in a second. +inf where nothing later has a deadline.
        """
        before, least = 0.0, math.inf
        for chunk in self._chunks:
            if chunk.keys[0][0] > due:
                least = min(least, chunk.slack_at(speed) - before)
            elif chunk.keys[-1][0] > due:
                least = min(least, chunk.slack_after((due, 1 << 62), speed) - before)
            before += chunk.total
        return least

    def _split(self, at: int) -> None:
        old = self._chunks[at]
        halves = []
        for keys in (old.keys[:_CHUNK], old.keys[_CHUNK:]):
            half = _Chunk(keys, {key: old.seconds[key] for key in keys})
            half.deadlines = {key: old.deadlines[key] for key in keys if key in old.deadlines}
            half.changed()
            halves.append(half)
        self._chunks[at : at + 1] = halves
        self._last[at : at + 1] = [half.keys[-1] for half in halves]

    def _sum(self) -> None:
        self.total = math.fsum(chunk.total for chunk in self._chunks)
