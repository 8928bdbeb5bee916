"""Time for everything under ``server/``: the only module that reads the system's clock. Nothing here sleeps."""

from __future__ import annotations

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from. Safe to call from any thread."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...


class SystemClock:
    """The machine's monotonic clock, the one that event loops use too."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        return time.monotonic()


class ThreadClock:
    """CPU time of the calling thread. What runs on one thread is timed by it as if the machine did nothing else."""

    def monotonic(self) -> float:
        """Seconds that the calling thread has been computing; comparable on one thread only."""
        return time.thread_time()


def timestamp() -> str:
    """Now in RFC 3339, UTC, to the second: what files say of when they were made."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def wall_ms() -> int:
    """Milliseconds since 1970: when something was, for people; never for how long it took."""
    return time.time_ns() // 1_000_000


class SimClock:
    """A clock that stands still until it is moved, for tests and simulations."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now = start_s

    def monotonic(self) -> float:
        """The simulated time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the time forward.

        Raises:
            ValueError: ``seconds`` is negative; a monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: advance({seconds})")
        self._now += seconds
