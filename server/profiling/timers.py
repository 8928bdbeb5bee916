"""Clocks of a profile. CPU time is what counts: on a machine that others load too, wall time measures the others."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds from arbitrary moments."""

    wall: Callable[[], float]
    thread: Callable[[], float]
    """CPU time of the thread that calls."""
    process: Callable[[], float]
    """CPU time of all threads."""
    thread_of: Callable[[int], float]
    """CPU time of the thread with that ``threading.Thread.ident``."""


class Stopwatch:
    """CPU seconds by stage, added up over threads."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds what the block takes of its thread."""
        began = self._timers.thread()
        try:
            yield
        finally:
            seconds = self._timers.thread() - began
            with self._lock:
                self._seconds[name] += seconds

    def seconds(self, name: str) -> float:
        """What a stage has taken so far."""
        with self._lock:
            return self._seconds[name]
