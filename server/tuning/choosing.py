"""The fastest of many candidates that gives the same answers: coordinate descent.

From a start, the factors are taken one after the other. The alternatives of a factor are measured against the best so
far; the fastest takes its place where it gives the same answers and is faster by more than the noise.

Two sessions of one and the same graph differ by 1 to 3 %, by where their weights happen to lie in memory, and the one
that was opened first tends to be slower. So the best so far takes part twice, opened before and after the others;
a challenger must beat both instances, and again after everything is reopened.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from pairwire.v1 import manifest_pb2

from ..clock import Clock, SystemClock, timestamp
from ..runtime.base import RuntimeInfo
from .measuring import GAIN, Contender, Measure

T = TypeVar("T")


class NotApplicable(Exception):
    """A candidate that cannot be tried here; ``str(error)`` says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A candidate that is ready to run."""

    contender: Contender
    difference: float
    """Largest difference of a score or vector component from the start's."""
    refusal: Callable[[], str]
    """Why it may not be chosen, empty where it may. Asked only of one that would win, after ``close``."""
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Choices(Generic[T]):
    """A search: where it begins, and where it may go from a candidate."""

    start: T
    factors: Sequence[Callable[[T], Sequence[T]]]
    """Each gives the alternatives to a candidate in one respect."""
    open: Callable[[T], Opened]
    """Makes a candidate ready, or raises NotApplicable. Asked again for the same one, it opens a new instance."""
    name: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Tried:
    """A row of the table."""

    name: str
    us_per_token: tuple[float, ...] = ()
    """One for each column; empty where it was not measured."""
    relative: float = 0.0
    """To the start."""
    difference: float = 0.0
    chosen: bool = False
    reason: str = ""

    def to_proto(self) -> manifest_pb2.Candidate:
        """The row as the manifest keeps it."""
        return manifest_pb2.Candidate(
            name=self.name,
            us_per_token=[round(value, 3) for value in self.us_per_token],
            relative=round(self.relative, 4),
            max_abs_diff=self.difference,
            chosen=self.chosen,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """What was chosen, and from what."""

    best: T
    table: Sequence[Tried]
    """In the order of the search; the first is the start."""

    @property
    def changed(self) -> bool:
        """Whether it is not the start."""
        return not self.table[0].chosen

    @property
    def chosen(self) -> Tried:
        """The row of the best."""
        return next(tried for tried in self.table if tried.chosen)

    def to_proto(self, subject: str, info: RuntimeInfo, columns: Sequence[object]) -> manifest_pb2.Tuning:
        """The table as the manifest keeps it: what was asked, where it was measured, on what."""
        return manifest_pb2.Tuning(
            subject=subject,
            processor=info.device,
            runtime=info.version,
            created=timestamp(),
            columns=[str(column) for column in columns],
            candidates=[tried.to_proto() for tried in self.table],
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a search may take. What has begun is finished: a measurement that is cut off says nothing."""

    seconds: float
    advance: Callable[[float], None] = lambda share: None
    """Told now and then which share of it is spent."""
    clock: Clock = field(default_factory=SystemClock)


def choose(choices: Choices[T], measure: Measure, budget: Budget | None = None) -> Choice[T]:
    """Searches; with a ``budget`` until that is spent, and the best so far is the best.

    Raises:
        Whatever opening or running a candidate raises besides NotApplicable.
    """
    return _Search(choices, measure, budget).run()


@dataclass(frozen=True, slots=True)
class _Seen(Generic[T]):
    """A candidate against the best so far."""

    candidate: T
    opened: Opened
    """Closed again; its refusal may still be asked for."""
    us_per_token: tuple[float, ...]
    relative: float
    """To the mean of the best's two instances."""
    margin: float
    """To the faster one of them."""


class _Search(Generic[T]):
    def __init__(self, choices: Choices[T], measure: Measure, budget: Budget | None) -> None:
        self._budget = budget
        self._started_s = budget.clock.monotonic() if budget else 0.0
        self._longest_s = 0.0
        self._choices = choices
        self._measure = measure
        self._best = choices.start
        self._best_row = 0
        self._table = [Tried(choices.name(choices.start), relative=1.0)]

    def run(self) -> Choice[T]:
        for factor in self._choices.factors:
            before_s = self._spent_s()
            if self._affordable(before_s):
                self._try(factor(self._best))
                self._told()
                self._longest_s = max(self._longest_s, self._spent_s() - before_s)
            else:
                self._leave_out(factor(self._best))
        self._table[0] = replace(self._table[0], reason="where it began" if self._best_row else "nothing was faster")
        self._table[self._best_row] = replace(self._table[self._best_row], chosen=True)
        return Choice(self._best, self._table)

    def _spent_s(self) -> float:
        return self._budget.clock.monotonic() - self._started_s if self._budget else 0.0

    def _told(self) -> None:
        if self._budget:
            self._budget.advance(min(1.0, self._spent_s() / self._budget.seconds))

    def _affordable(self, spent_s: float) -> bool:
        """Whether another factor would end within the budget, if it took half as long as the longest did."""
        return self._budget is None or spent_s + self._longest_s / 2 < self._budget.seconds

    def _leave_out(self, alternatives: Sequence[T]) -> None:
        assert self._budget is not None
        for one in alternatives:
            reason = f"not tried: the budget of {self._budget.seconds:g} s was spent"
            self._table.append(Tried(self._choices.name(one), reason=reason))

    def _try(self, alternatives: Sequence[T]) -> None:
        """Measures the alternatives; one may take the place of the best so far."""
        seen = self._seen(alternatives)
        reference = self._table[self._best_row]
        first = len(self._table)
        for one in seen:
            self._table.append(
                Tried(
                    self._choices.name(one.candidate),
                    one.us_per_token,
                    reference.relative * one.relative,
                    one.opened.difference,
                )
            )
        winner = ""
        for row, one in sorted(enumerate(seen, start=first), key=lambda item: item[1].margin):
            name = self._table[row].name
            reason = _not_faster(one) if not winner else f"slower than {winner}"
            reason = reason or one.opened.refusal() or self._unconfirmed(one)
            if not reason:
                self._best, self._best_row, winner = one.candidate, row, name
                reason = f"{1 - one.relative:.1%} faster than {reference.name}"
            self._table[row] = replace(self._table[row], reason=reason)

    def _seen(self, candidates: Sequence[T], *, candidates_first: bool = False) -> list[_Seen[T]]:
        """Measures candidates against two instances of the best so far, one opened before them and one after."""
        if not candidates:
            return []
        with contextlib.ExitStack() as stack:
            pairs: list[tuple[T, Opened]] = []
            best: list[Opened] = []

            def open_(candidate: T) -> Opened:
                opened = self._choices.open(candidate)
                stack.callback(opened.close)
                return opened

            if not candidates_first:
                best.append(open_(self._best))
            for candidate in candidates:
                try:
                    pairs.append((candidate, open_(candidate)))
                except NotApplicable as error:
                    self._table.append(Tried(self._choices.name(candidate), reason=str(error)))
            if not pairs:
                return []
            while len(best) < 2:
                best.append(open_(self._best))
            everyone = [best[0], *(opened for _, opened in pairs), best[1]]
            timings = self._measure([opened.contender for opened in everyone])
        if not self._table[0].us_per_token:
            self._table[0] = replace(self._table[0], us_per_token=tuple(timings.us_per_token[0]))
        first, again = timings.relative[0], timings.relative[-1]
        return [
            _Seen(
                candidate,
                opened,
                tuple(timings.us_per_token[at]),
                timings.relative[at] / math.sqrt(first * again),
                timings.relative[at] / min(first, again),
            )
            for at, (candidate, opened) in enumerate(pairs, start=1)
        ]

    def _unconfirmed(self, one: _Seen[T]) -> str:
        """Why a second measurement, of new instances, does not confirm the first; empty where it does."""
        (again,) = self._seen([one.candidate], candidates_first=True)
        return f"not faster in a second measurement ({again.relative:.3f})" if _not_faster(again) else ""


def _not_faster(one: _Seen[T]) -> str:
    if one.margin <= 1 - GAIN:
        return ""
    return f"{one.relative - 1:.1%} slower" if one.relative > 1 + GAIN else f"no difference beyond {GAIN:.0%}"
