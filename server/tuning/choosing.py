"""The fastest of many candidates that gives the same answers: coordinate descent.

From a start, the factors are taken one after the other. The alternatives of a factor are measured beside the best so
far; the fastest takes its place where it is faster by more than the noise in two measurements, and gives the same
answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pairwire.v1 import manifest_pb2

from .measuring import Contender, Measure

T = TypeVar("T")

GAIN = 0.02
"""Share of the time that a candidate must save; less is noise, and not worth another recipe."""


class NotApplicable(Exception):
    """A candidate that cannot be tried here; ``str(error)`` says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A candidate that is ready to run."""

    contender: Contender
    difference: float
    """Largest difference of a score or vector component from the start's."""
    refusal: Callable[[], str]
    """Why it may not be chosen, empty where it may. Asked only of one that would win: it may take long."""
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Choices(Generic[T]):
    """A search: where it begins, and where it may go from a candidate."""

    start: T
    factors: Sequence[Callable[[T], Sequence[T]]]
    """Each gives the alternatives to a candidate in one respect."""
    open: Callable[[T], Opened]
    """Makes a candidate ready, or raises NotApplicable."""
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


def choose(choices: Choices[T], measure: Measure) -> Choice[T]:
    """Searches.

    Raises:
        Whatever opening or running a candidate raises beside NotApplicable.
    """
    return _Search(choices, measure).run()


class _Search(Generic[T]):
    def __init__(self, choices: Choices[T], measure: Measure) -> None:
        self._choices = choices
        self._measure = measure
        self._table: list[Tried] = []
        self._best = choices.start
        self._best_row = 0
        self._opened = choices.open(choices.start)

    def run(self) -> Choice[T]:
        choices = self._choices
        self._table.append(Tried(choices.name(choices.start), relative=1.0))
        try:
            for factor in choices.factors:
                self._try(factor(self._best))
        finally:
            self._opened.close()
        self._table[self._best_row] = replace(self._table[self._best_row], chosen=True)
        if not self._best_row:
            self._table[0] = replace(self._table[0], reason="nothing was faster")
        return Choice(self._best, self._table)

    def _try(self, alternatives: Sequence[T]) -> None:
        """Measures the alternatives beside the best so far; one may take its place."""
        opened: list[tuple[T, Opened]] = []
        winner: Opened | None = None
        try:
            for candidate in alternatives:
                try:
                    opened.append((candidate, self._choices.open(candidate)))
                except NotApplicable as error:
                    self._table.append(Tried(self._choices.name(candidate), reason=str(error)))
            if opened:
                winner = self._compare(opened)
        finally:
            for _, one in opened:
                if one is not winner:
                    one.close()

    def _compare(self, opened: Sequence[tuple[T, Opened]]) -> Opened | None:
        timings = self._measure([self._opened.contender, *(one.contender for _, one in opened)])
        if not self._table[0].us_per_token:
            self._table[0] = replace(self._table[0], us_per_token=tuple(timings.us_per_token[0]))
        reference = self._table[self._best_row]
        first = len(self._table)
        for at, (candidate, one) in enumerate(opened, start=1):
            self._table.append(
                Tried(
                    self._choices.name(candidate),
                    tuple(timings.us_per_token[at]),
                    reference.relative * timings.relative[at],
                    one.difference,
                    reason=_slower(timings.relative[at]),
                )
            )
        fastest_first = sorted(range(len(opened)), key=lambda at: timings.relative[at + 1])
        for at in fastest_first:
            candidate, one = opened[at]
            if timings.relative[at + 1] > 1 - GAIN:
                break
            reason = one.refusal() or self._unconfirmed(one)
            row = first + at
            if reason:
                self._table[row] = replace(self._table[row], reason=reason)
                continue
            saved = 1 - timings.relative[at + 1]
            self._table[row] = replace(self._table[row], reason=f"{saved:.1%} faster than {reference.name}")
            for other in range(first, len(self._table)):
                if not self._table[other].reason:
                    self._table[other] = replace(self._table[other], reason=f"slower than {self._table[row].name}")
            self._opened.close()
            self._best, self._best_row, self._opened = candidate, row, one
            return one
        return None

    def _unconfirmed(self, one: Opened) -> str:
        """Why a second measurement does not confirm the first; empty where it does."""
        again = self._measure([self._opened.contender, one.contender]).relative[1]
        return "" if again <= 1 - GAIN else f"a second measurement saw only {1 - again:+.1%}"


def _slower(relative: float) -> str:
    if relative > 1 + GAIN:
        return f"{relative - 1:.1%} slower"
    return "" if relative <= 1 - GAIN else f"no difference beyond {GAIN:.0%}"
