"""How many parts of a large call are on their way at once: as many as servers answer within a second or so.

A server refuses what would wait for longer than two seconds. A client that sent all parts at once would be refused, one
by one, and come back; one that watches how fast the answers come keeps a slow server busy all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAST = 2
"""One is being answered, and one is there when it is."""
_FIRST = 4
"""Before it is known how fast answers come."""
_AHEAD_S = 1.0
_NEWEST = 0.5


class Window:
    """Watches the answers of one call."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = now
        self._last: float | None = None
        self._gap_s: float | None = None

    @property
    def size(self) -> int:
        """Most parts on their way."""
        if self._gap_s is None:
            return min(self._most, _FIRST)
        ahead = self._most if self._gap_s * self._most < _AHEAD_S else int(_AHEAD_S / self._gap_s)
        return min(self._most, _LEAST + ahead)

    def answered(self) -> None:
        """A part was."""
        now, last = self._now(), self._last
        self._last = now
        if last is not None:
            gap_s = now - last
            self._gap_s = gap_s if self._gap_s is None else self._gap_s + _NEWEST * (gap_s - self._gap_s)
