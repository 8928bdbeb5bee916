"""Notices runs that take far too long: asks them to end, and says so where they do not.

A run is *overdue* after ``FACTOR`` times what it should take, but not before the floor. It is then interrupted, and
where it ends its worker goes on. One that does not end is *stuck*: nothing in this process can end it, so its owner is
called, once, and has to end the process.

Guarantees
- The time that counts is the watchdog's own: it adds up short waits and counts none of them for more than twice its
  length. A process that was stopped, or a machine that was asleep, is no reason to blame a run.
- What is interrupted is the run that was overdue, never the next one of its thread.
- It writes no log before it has acted: a log that nobody reads blocks whoever writes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ..clock import Clock

T = TypeVar("T")

logger = logging.getLogger(__name__)

FACTOR = 20.0
"""A run is overdue when it has taken this many times what it should. A machine whose CPUs are taken by others makes a
run last several times as long; a run that hangs lasts for ever, so that there is no hurry."""
GRACE_S = 5.0
"""What a run that was asked to end has for it. ONNX Runtime looks after each operator."""
_TICKS = 10
"""The floor is waited for in this many parts."""


class RunHung(Exception):
    """A run took too long and was ended."""


class RunStuck(Exception):
    """A run that was asked to end does not. No Exception of the caller's: the process has to end."""


@dataclass(eq=False, slots=True)
class Watched:
    """Something that is going on now."""

    what: str
    """For the log, e.g. ``a run of model 'a'``."""
    limit_s: float
    left_s: float
    interrupt: Callable[[], None] | None
    interrupted: bool = False
    """Whether it was asked to end."""
    stuck: bool = False

    def beat(self) -> None:
        """A sign of life: the time begins again."""
        self.left_s = self.limit_s


class Watchdog:
    """Watches what threads do. ``watch`` may be called from any thread; ``on_stuck`` is called from its own."""

    def __init__(self, floor_s: float, *, clock: Clock, on_stuck: Callable[[RunStuck], None] | None = None) -> None:
        """``floor_s`` is how long any run may take; 0 watches nothing."""
        self._floor_s = floor_s
        self._clock = clock
        self._on_stuck = on_stuck or (lambda stuck: None)
        self._changed = threading.Condition()
        self._watched: dict[Watched, None] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def on_stuck(self, listener: Callable[[RunStuck], None]) -> None:
        """Whom to tell from now on."""
        self._on_stuck = listener

    @contextmanager
    def watch(
        self,
        what: str,
        interrupt: Callable[[], None] | None = None,
        *,
        expected_s: float = 0.0,
        floor_s: float | None = None,
    ) -> Iterator[Watched]:
        """Watches what is done in the block. ``interrupt`` asks it to end, from another thread; None: it cannot be.

        ``floor_s`` is a lower floor than the watchdog's.
        """
        limit_s = max(self._floor_s if floor_s is None else min(floor_s, self._floor_s), FACTOR * expected_s)
        watched = Watched(what, limit_s, limit_s, interrupt)
        if not self._floor_s:
            yield watched
            return
        with self._changed:
            self._watched[watched] = None
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._look, name="pairwire-watchdog", daemon=True)
                self._thread.start()
        try:
            yield watched
        finally:
            with self._changed:
                del self._watched[watched]

    def run(
        self,
        what: str,
        work: Callable[[], T],
        interrupt: Callable[[], None],
        *,
        expected_s: float = 0.0,
        floor_s: float | None = None,
    ) -> T:
        """What ``work`` gives; the arguments of ``watch``.

        Raises:
            RunHung: it was asked to end, and did.
            Whatever ``work`` raises.
        """
        with self.watch(what, interrupt, expected_s=expected_s, floor_s=floor_s) as watched:
            try:
                return work()
            except Exception as error:  # whatever the runtime raises
                if watched.interrupted:
                    raise RunHung(f"{what} took more than {watched.limit_s:g} s") from error
                raise

    def interrupt_all(self) -> None:
        """Asks everything that goes on to end, overdue or not."""
        with self._changed:
            for watched in self._watched:
                _interrupt(watched)

    def close(self) -> None:
        """Watches nothing any more. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _look(self) -> None:
        tick_s = self._floor_s / _TICKS
        last = self._clock.monotonic()
        while True:
            with self._changed:
                if self._closed or self._changed.wait_for(lambda: self._closed, tick_s):
                    return
                now = self._clock.monotonic()
                overdue, stuck = self._age(min(now - last, 2 * tick_s))
                last = now
            for watched in stuck:
                how = "does not end, though it was asked to" if watched.interrupt else "gives no sign of life"
                self._on_stuck(RunStuck(f"{watched.what} {how}, for {watched.limit_s:g} s now"))
            for watched in overdue:
                logger.error("%s has taken more than %g s; it is asked to end", watched.what, watched.limit_s)

    def _age(self, seconds: float) -> tuple[list[Watched], list[Watched]]:
        """Under the lock: what has become overdue, and what has become stuck."""
        overdue, stuck = [], []
        for watched in self._watched:
            watched.left_s -= seconds
            if watched.left_s > 0 or watched.stuck:
                continue
            if watched.interrupted or watched.interrupt is None:
                watched.stuck = True
                stuck.append(watched)
            else:
                _interrupt(watched)
                watched.left_s = min(GRACE_S, self._floor_s)
                overdue.append(watched)
        return overdue, stuck


def _interrupt(watched: Watched) -> None:
    watched.interrupted = True
    if watched.interrupt is not None:
        watched.interrupt()
