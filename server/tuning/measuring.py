"""What a token costs each of several contenders.

They run side by side in one thread, in turns, so that a busy machine, a hot processor or a neighbour hits all of them.
What counts is the thread's CPU time, which others on the machine stretch much less than the wall's, and the median
ratio of neighbours in time. Each turn begins with a run that is not counted: the weights of the contender before are
in the caches.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..clock import Clock, ThreadClock
from ..runtime.base import TokenBatch

LEAST_TURNS = 5
MOST_TURNS = 25
"""Turns of a contender for one column."""
BUDGET_S = 2.0
"""CPU seconds that one comparison may take, as long as everyone has had ``LEAST_TURNS``."""


@dataclass(frozen=True, slots=True)
class Shape:
    """So many rows of one length."""

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
    """``SHAPES`` of a model that reads at most so many tokens, without doubles."""
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
    clock = clock or ThreadClock()
    columns = len(contenders[0].work)
    seconds: list[list[list[float]]] = []
    for column in range(columns):
        seconds.append(_column(contenders, column, clock, budget_s / columns))
    ratios = [
        [statistics.median(own / first for own, first in zip(times, column[0], strict=True)) for times in column]
        for column in seconds
    ]
    return Timings(
        us_per_token=[
            [statistics.median(seconds[column][at]) * 1e6 for column in range(columns)] for at in range(len(contenders))
        ],
        relative=[geometric_mean([column[at] for column in ratios]) for at in range(len(contenders))],
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _column(contenders: Sequence[Contender], column: int, clock: Clock, budget_s: float) -> list[list[float]]:
    """[contenders][turns] seconds a token."""
    started = clock.monotonic()
    for contender in contenders:  # the first run allocates; it tells only how long all of this will take
        _run(contender, column)
    round_s = 2 * (clock.monotonic() - started)
    turns = max(LEAST_TURNS, min(MOST_TURNS, int(budget_s / max(round_s, 1e-6))))
    seconds: list[list[float]] = [[] for _ in contenders]
    for turn in range(turns):
        for step in range(len(contenders)):
            at = (turn + step) % len(contenders)  # nobody always follows the same one
            _run(contenders[at], column)
            before = clock.monotonic()
            _run(contenders[at], column)
            tokens = sum(batch.rows * batch.length for batch in contenders[at].work[column])
            seconds[at].append(max(clock.monotonic() - before, 1e-9) / tokens)
    return seconds


def _run(contender: Contender, column: int) -> None:
    for batch in contender.work[column]:
        contender.run(batch)
