"""The event loop in virtual time: calls arrive, idle workers ask the rule, batches take what the costs say."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .rules import Call, Rule, Work

Float64Array = npt.NDArray[np.float64]
Seconds = Callable[[int, int], float]
"""(rows, length) -> what a batch of that shape takes."""


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Calls come when they come, whatever the server does."""

    arrivals: Float64Array
    """[calls] seconds, ascending."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """This many calls are always in flight: one that is answered is followed by the next at once."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Run:
    """A batch as it ran."""

    ended: float
    rows: int
    length: int
    tokens: int
    """Useful ones."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of every call and row."""

    calls: Sequence[Call]
    workers: int
    arrived: Float64Array
    """[calls]"""
    finished: Float64Array
    """[calls] when the last row had run."""
    row_finished: Float64Array
    """[rows]"""
    row_seconds: Float64Array
    """[rows] each row's equal share of its batch's seconds."""
    runs: Sequence[Run]


_ENDED, _ARRIVED, _WOKEN = range(3)
"""Of what happens at the same moment, batches end first."""


def simulate(
    rule: Rule, calls: Sequence[Call], seconds: Seconds, *, workers: int, load: OpenLoop | ClosedLoop
) -> Trace:
    """Runs all calls to their end.

    Raises:
        RuntimeError: the rule ran a row twice, or left rows waiting for ever.
    """
    loop = _Loop(rule, calls, seconds, workers, load)
    loop.run()
    return loop.trace()


class _Loop:
    def __init__(
        self, rule: Rule, calls: Sequence[Call], seconds: Seconds, workers: int, load: OpenLoop | ClosedLoop
    ) -> None:
        self._rule, self._calls, self._seconds, self._workers, self._load = rule, calls, seconds, workers, load
        lengths = [length for call in calls for length in call.lengths]
        self._lengths = lengths
        self._call_of = np.repeat(np.arange(len(calls)), [len(call.lengths) for call in calls]).tolist()
        self._left = [len(call.lengths) for call in calls]
        self._arrived = np.full(len(calls), np.nan)
        self._finished = np.full(len(calls), np.nan)
        self._row_finished = np.full(len(lengths), np.nan)
        self._row_seconds = np.full(len(lengths), np.nan)
        self._runs: list[Run] = []
        self._events: list[tuple[float, int, int, Work | Call | None]] = []  # (when, kind, order, subject)
        self._order = 0
        self._idle = workers
        self._unsent = 0
        if isinstance(load, OpenLoop):
            for call, time in zip(calls, load.arrivals.tolist(), strict=True):
                self._push(time, _ARRIVED, call)
        else:
            for _ in range(min(load.in_flight, len(calls))):
                self._send_next(0.0)

    def run(self) -> None:
        while self._events:
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                self._handle(now, heapq.heappop(self._events)[3])
            self._give_work(now)
        waiting = int(np.isnan(self._row_finished).sum())
        if waiting:
            raise RuntimeError(f"{type(self._rule).__name__} left {waiting} rows waiting")

    def trace(self) -> Trace:
        return Trace(
            calls=self._calls,
            workers=self._workers,
            arrived=self._arrived,
            finished=self._finished,
            row_finished=self._row_finished,
            row_seconds=self._row_seconds,
            runs=self._runs,
        )

    def _push(self, time: float, kind: int, subject: Work | Call | None) -> None:
        heapq.heappush(self._events, (time, kind, self._order, subject))
        self._order += 1

    def _handle(self, now: float, subject: Work | Call | None) -> None:
        if isinstance(subject, Call):
            self._arrived[subject.number] = now
            self._rule.admit(subject, now)
        elif isinstance(subject, Work):
            self._idle += 1
            self._rule.complete(subject, now)
            self._end(subject, now)

    def _give_work(self, now: float) -> None:
        while self._idle:
            work = self._rule.next_work(now)
            if not isinstance(work, Work):
                if work < float("inf"):
                    self._push(work, _WOKEN, None)
                return
            self._idle -= 1
            seconds = self._seconds(len(work.rows), work.length)
            self._push(now + seconds, _ENDED, work)
            for row in work.rows:
                if not np.isnan(self._row_seconds[row]):
                    raise RuntimeError(f"{type(self._rule).__name__} ran row {row} twice")
                self._row_seconds[row] = seconds / len(work.rows)

    def _end(self, work: Work, now: float) -> None:
        self._runs.append(Run(now, len(work.rows), work.length, sum(self._lengths[row] for row in work.rows)))
        for row in work.rows:
            self._row_finished[row] = now
            number = self._call_of[row]
            self._left[number] -= 1
            if not self._left[number]:
                self._finished[number] = now
                if isinstance(self._load, ClosedLoop):
                    self._send_next(now)

    def _send_next(self, now: float) -> None:
        if self._unsent < len(self._calls):
            self._push(now, _ARRIVED, self._calls[self._unsent])
            self._unsent += 1
