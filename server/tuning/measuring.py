"""What a token costs each of several contenders.

They run side by side in one thread, in turns, so that a busy machine, a hot processor or a neighbour hits all of them.
What counts is the thread's CPU time, which others on the machine stretch much less than the wall's, and the median
ratio of neighbours in time. Each turn begins with a run that is not counted, of the first column's batches: the weights
of the contender before are in the caches.

The first and the last contender are those that the others have to beat. A contender that was not clearly faster than
the first in its best turns stops taking part after ``CLEAR_TURNS``; when none is left, the answer is clear.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..clock import Clock, ThreadClock
from ..runtime.base import TokenBatch

CLEAR_TURNS = 3
"""Turns after which a contender may be out."""
GAIN = 0.02
"""Share of the time that a contender must save to be faster; less is noise, and not worth a change."""
LEAST_TURNS = 4
MOST_TURNS = 25
"""Turns of a contender for one column."""
BUDGET_S = 2.0
"""CPU seconds that one comparison may take, as long as everyone has had ``LEAST_TURNS``."""


@dataclass(frozen=True, slots=True)
class Shape:
    """This many rows of one length."""

    rows: int
    length: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.length}"


SHAPES = (Shape(1, 16), Shape(8, 32), Shape(4, 128), Shape(1, 200), Shape(1, 384))
"""A short row alone, batches as the planner makes them, long rows below and above where they run unpadded."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that runs batches, and the batches that it would run."""

    name: str
    run: Callable[[TokenBatch], object]
    work: Sequence[Sequence[TokenBatch]]
    """For each column what it runs there: one batch or several. Contenders may cut the same rows differently."""


@dataclass(frozen=True, slots=True)
class Timings:
    """What contenders took, in their order."""

    us_per_token: Sequence[Sequence[float]]
    """[contenders][columns] median microseconds."""
    relative: Sequence[float]
    """[contenders] time relative to the first: medians of ratios, their geometric mean over the columns."""


Measure = Callable[[Sequence[Contender]], Timings]
"""The seam: tests choose by made-up timings."""


def shapes_up_to(max_length: int) -> tuple[Shape, ...]:
    """``SHAPES`` of a model that reads at most N tokens, without doubles."""
    return tuple(dict.fromkeys(Shape(shape.rows, min(shape.length, max_length)) for shape in SHAPES))


def work_of(
    shapes: Sequence[Shape], fill: Callable[[int, int], TokenBatch], *, unpadded_from: int = 0
) -> tuple[tuple[TokenBatch, ...], ...]:
    """The batches of each shape; rows of ``unpadded_from`` tokens or more run alone, as the engine runs them.

    ``fill`` makes a batch of (rows, length) full rows.
    """
    work = []
    for shape in shapes:
        alone = unpadded_from and shape.length >= unpadded_from
        work.append((fill(1, shape.length),) * shape.rows if alone else (fill(shape.rows, shape.length),))
    return tuple(work)


def measure(contenders: Sequence[Contender], *, clock: Clock | None = None, budget_s: float = BUDGET_S) -> Timings:
    """Times all contenders on all columns.

    Raises:
        Whatever a contender raises when it runs.
    """
    race = _Race(contenders, clock or ThreadClock())
    turns = race.turns(budget_s)
    for turn in range(turns):
        race.turn(turn)
        if turn + 1 >= CLEAR_TURNS and race.is_clear():
            break
    return race.timings()


class _Race:
    """Contenders, and the seconds a token that each of them took in each turn."""

    def __init__(self, contenders: Sequence[Contender], clock: Clock) -> None:
        self._contenders = contenders
        self._clock = clock
        self._columns = range(len(contenders[0].work))
        self._left = list(range(len(contenders)))
        self._seconds: list[list[list[float]]] = [[[] for _ in self._columns] for _ in contenders]
        """[contenders][columns][turns]"""

    def turns(self, budget_s: float) -> int:
        """How many the budget allows. Everything runs once: that allocates, and tells only how long it takes."""
        started = self._clock.monotonic()
        for at in self._left:
            for column in self._columns:
                self._run(at, column)
        round_s = 2 * (self._clock.monotonic() - started)
        return max(LEAST_TURNS, min(MOST_TURNS, int(budget_s / max(round_s, 1e-6))))

    def turn(self, number: int) -> None:
        """Times all that are left on all columns."""
        for column in self._columns:
            for step in range(len(self._left)):
                at = self._left[(number + step) % len(self._left)]  # nobody always follows the same one
                self._run(at, 0)
                before = self._clock.monotonic()
                self._run(at, column)
                tokens = sum(batch.rows * batch.length for batch in self._contenders[at].work[column])
                self._seconds[at][column].append(max(self._clock.monotonic() - before, 1e-9) / tokens)

    def is_clear(self) -> bool:
        """Lets those go that cannot win; whether nobody is left who could."""
        edges = (0, len(self._contenders) - 1)
        if len(self._contenders) < 3:
            return False
        self._left = [at for at in self._left if at in edges or self._relative(at, min) <= 1 - GAIN]
        return all(at in edges for at in self._left)

    def timings(self) -> Timings:
        """Of the turns that each took part in."""
        return Timings(
            us_per_token=[[statistics.median(times) * 1e6 for times in columns] for columns in self._seconds],
            relative=[self._relative(at, statistics.median) for at in range(len(self._contenders))],
        )

    def _relative(self, at: int, pick: Callable[[list[float]], float]) -> float:
        """To the first: of each column one of the ratios of neighbours in time."""
        return geometric_mean(
            [
                pick([mine / its for mine, its in zip(own, first, strict=False)])  # who is out has fewer turns
                for own, first in zip(self._seconds[at], self._seconds[0], strict=True)
            ]
        )

    def _run(self, at: int, column: int) -> None:
        for batch in self._contenders[at].work[column]:
            self._contenders[at].run(batch)


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))
