"""How long to wait before a process is started again."""

from __future__ import annotations

FIRST_S = 0.5
LONGEST_S = 30.0
HEALTHY_S = 60.0
"""Whoever has served so long is not in a crash loop."""


class BackOff:
    """Doubles the wait with each end that follows soon upon a start."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def after(self, served_s: float) -> float:
        """Seconds to wait after an end; ``served_s`` is how long it had served, 0 where it never came up."""
        if served_s >= HEALTHY_S:
            self._next_s = FIRST_S
        wait_s, self._next_s = self._next_s, min(LONGEST_S, self._next_s * 2)
        return wait_s
