"""What a batch costs in seconds, measured on the deployed model and corrected by what batches then really take.

A few shapes are timed at warm-up. Between measured row counts and between measured lengths the cost is taken to be
linear. The table's shape decides how batches are planned; one moving factor, learnt from live batches, keeps its scale
right when the machine is busier than it was at warm-up.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...clock import Clock
from ...runtime.base import Runtime, TokenBatch
from .buckets import Bucket, Ladder

logger = logging.getLogger(__name__)

Float64Array = npt.NDArray[np.float64]

LEAST_SECONDS = 1e-9
"""No batch is free: keeps ratios finite where a simulated clock stands still."""
_MEMORY = 0.05
"""Weight of the newest batch in the moving factor: about the last 20 batches count."""
_FACTOR_RANGE = (0.1, 10.0)
"""One stalled batch (a paused machine, a page fault storm) must not blow the estimate up."""
_REPEATS = 4
_FEWEST_LENGTHS = 2
_ATTEMPTS = 3
_NEARLY_BEST = 1.25
"""A row costs at most this much more in the smallest batch worth running than in the best one."""


class Costs(Protocol):
    """What the scheduler asks about batches. Not thread-safe: the scheduler's lock guards it."""

    @property
    def factor(self) -> float:
        """What live batches take, relative to what was measured."""
        ...

    def seconds(self, rows: int, length: int) -> float:
        """Predicted seconds of one bucket."""
        ...

    def row_seconds(self) -> Float64Array:
        """[levels] predicted seconds of a row in the best batch of its length."""
        ...

    def batch_seconds(self, level: int) -> tuple[float, ...]:
        """Seconds by number of rows, from 0 up to the largest batch of that level."""
        ...

    def best_rows(self, level: int) -> int:
        """Rows of the batch that is cheapest row for row."""
        ...

    def worthwhile_rows(self, length: int) -> int:
        """Fewest rows of that length that are nearly as cheap, row for row, as the best batch of it."""
        ...

    def learn(self, rows: int, length: int, seconds: float) -> None:
        """Takes in what a batch really took."""
        ...


class CostTable:
    """Seconds of a run for every batch shape of one model. Not thread-safe: the scheduler's lock guards it."""

    def __init__(self, ladder: Ladder, measured: Mapping[Bucket, float], *, batch_tokens: int) -> None:
        """Builds the table from measured seconds; at least one shape, any rows and lengths.

        Raises:
            ValueError: nothing was measured.
        """
        if not measured:
            raise ValueError("a cost table needs at least one measured shape")
        self.measured = dict(measured)
        """The measured seconds, as given."""
        self._levels = {length: level for level, length in enumerate(ladder.lengths)}
        self._rows = max(1, batch_tokens // ladder.lengths[0])
        self._seconds = _interpolate(ladder, measured, self._rows).tolist()
        self._factor = 1.0
        most = [min(self._rows, max(1, batch_tokens // length)) for length in ladder.lengths]
        per_row = [[self._base(rows, level) / rows for rows in range(1, n + 1)] for level, n in enumerate(most)]
        self._row_seconds = np.array([min(costs) for costs in per_row])
        self._best = tuple(costs.index(min(costs)) + 1 for costs in per_row)
        self._batch_seconds = tuple(
            (0.0, *(cost * rows for rows, cost in enumerate(costs, start=1))) for costs in per_row
        )
        self._worthwhile = tuple(
            next(rows for rows, cost in enumerate(costs, 1) if cost <= _NEARLY_BEST * min(costs)) for costs in per_row
        )

    @property
    def factor(self) -> float:
        """What live batches take, relative to the measured table."""
        return self._factor

    def seconds(self, rows: int, length: int) -> float:
        """Predicted seconds of one run; ``length`` must be one of the ladder."""
        return self._base(rows, self._levels[length]) * self._factor

    def row_seconds(self) -> Float64Array:
        """[levels] predicted seconds of a row in the best batch of its length."""
        return self._row_seconds * self._factor

    def batch_seconds(self, level: int) -> tuple[float, ...]:
        """Seconds by number of rows, from 0 up to the largest batch of that level.

        For comparisons with each other only: the moving factor is left out, as it changes no plan.
        """
        return self._batch_seconds[level]

    def best_rows(self, level: int) -> int:
        """Rows of the batch that is cheapest row for row."""
        return self._best[level]

    def worthwhile_rows(self, length: int) -> int:
        """Fewest rows of that length that are nearly as cheap, row for row, as the best batch of it."""
        return self._worthwhile[self._levels[length]]

    def learn(self, rows: int, length: int, seconds: float) -> None:
        """Takes in what a batch really took."""
        self._factor = learnt(self._factor, seconds / self._base(rows, self._levels[length]))

    def _base(self, rows: int, level: int) -> float:
        if rows <= self._rows:
            return float(self._seconds[rows][level])
        last = self._seconds[self._rows][level]
        return float(last * rows / self._rows)


def learnt(factor: float, ratio: float) -> float:
    """The moving factor after one more batch, which took ``ratio`` times what was measured."""
    low, high = _FACTOR_RANGE
    return factor + _MEMORY * (min(high, max(low, ratio)) - factor)


def measure(
    runtime: Runtime,
    ladder: Ladder,
    clock: Clock,
    *,
    batch_tokens: int,
    budget_s: float,
    fill: Callable[[int, int], TokenBatch],
) -> CostTable:
    """Times a few shapes; also the warm-up, as the longest row is among them.

    Lengths are taken in order of usefulness until the time is up; two are always measured, so a slow model takes longer
    than ``budget_s``. What is left of the time goes into repeats, of which the fastest counts: noise only ever adds.
    ``fill`` makes a batch of (rows, length) full rows.

    Raises:
        Whatever the runtime raises: a model that cannot run its largest shape must not serve.
    """
    end = clock.monotonic() + budget_s
    measured: dict[Bucket, float] = {}

    def time_once(bucket: Bucket) -> None:
        batch = fill(bucket.rows, bucket.length)
        started = clock.monotonic()
        runtime.run(batch)
        seconds = max(LEAST_SECONDS, clock.monotonic() - started)
        measured[bucket] = min(seconds, measured.get(bucket, seconds))

    groups = _shapes_to_measure(ladder, batch_tokens)
    runtime.run(fill(1, groups[0][0].length))  # the first run allocates; it tells nothing
    for count, group in enumerate(groups):
        if count >= _FEWEST_LENGTHS and clock.monotonic() >= end:
            break
        for bucket in group:
            time_once(bucket)
    for _ in range(_REPEATS):
        for bucket in sorted(measured, key=lambda bucket: bucket.tokens):
            if clock.monotonic() + measured[bucket] < end:
                time_once(bucket)
    logger.debug("measured %d shapes: %s", len(measured), measured)
    return CostTable(ladder, measured, batch_tokens=batch_tokens)


def possible_measurements(ladder: Ladder, batch_tokens: int) -> list[frozenset[Bucket]]:
    """The sets of shapes that ``measure`` may have timed when it ends: one for each number of lengths."""
    groups = _shapes_to_measure(ladder, batch_tokens)
    fewest = min(_FEWEST_LENGTHS, len(groups))
    return [
        frozenset(bucket for group in groups[:count] for bucket in group) for count in range(fewest, len(groups) + 1)
    ]


def confirm(
    costs: CostTable,
    runtime: Runtime,
    ladder: Ladder,
    clock: Clock,
    *,
    batch_tokens: int,
    fill: Callable[[int, int], TokenBatch],
) -> float:
    """Runs the smallest and the largest batch: the warm-up of a model whose costs are known already.

    Returns:
        What the largest batch took, relative to the table; see ``plausible``.

    Raises:
        Whatever the runtime raises: a model that cannot run its largest shape must not serve.
    """
    runtime.run(fill(1, ladder.lengths[0]))
    longest = ladder.lengths[-1]
    largest = Bucket(max(1, batch_tokens // longest), longest)
    ratio = math.inf
    for _ in range(_ATTEMPTS):
        batch = fill(largest.rows, largest.length)
        started = clock.monotonic()
        runtime.run(batch)
        seconds = max(LEAST_SECONDS, clock.monotonic() - started)
        ratio = min(ratio, seconds / costs.seconds(largest.rows, largest.length))
        if plausible(ratio):
            break  # the first run allocates, and the machine may stall: only a surprise is worth a second look
    return ratio


def plausible(ratio: float) -> bool:
    """Whether a batch that took this many times what the table says is one that live timings can correct it for."""
    low, high = _FACTOR_RANGE
    return low <= ratio <= high


def _shapes_to_measure(ladder: Ladder, batch_tokens: int) -> list[list[Bucket]]:
    """Lengths in order of usefulness, each with a few numbers of rows."""
    groups = []
    for length in _lengths_to_measure(ladder):
        most = max(1, batch_tokens // length)
        groups.append([Bucket(rows, length) for rows in sorted({1, min(4, most), most})])
    return groups


def _lengths_to_measure(ladder: Ladder) -> list[int]:
    """Lengths of the ladder nearest to 64, the longest, the shortest, 256, 32, 128, 512, without doubles."""
    wanted = [64, ladder.lengths[-1], ladder.lengths[0], 256, 32, 128, 512]
    nearest = [min(ladder.lengths, key=lambda length: abs(length - target)) for target in wanted]
    return list(dict.fromkeys(nearest))


def _interpolate(ladder: Ladder, measured: Mapping[Bucket, float], most_rows: int) -> Float64Array:
    """[most_rows + 1, levels] seconds; row 0 is unused."""
    lengths = sorted({bucket.length for bucket in measured})
    rows = np.arange(most_rows + 1, dtype=np.float64)
    columns = np.empty((most_rows + 1, len(lengths)))
    for at, length in enumerate(lengths):
        points = sorted((bucket.rows, seconds) for bucket, seconds in measured.items() if bucket.length == length)
        columns[:, at] = _linear(rows, [float(n) for n, _ in points], [seconds for _, seconds in points])
    targets = np.array(ladder.lengths, dtype=np.float64)
    known = [float(length) for length in lengths]
    table = np.stack([_linear(targets, known, columns[n].tolist()) for n in range(most_rows + 1)])
    # A noisy measurement must not make more rows, or longer ones, look cheaper than fewer.
    table = np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
    return np.maximum(table, LEAST_SECONDS)


def _linear(at: Float64Array, known: Sequence[float], values: Sequence[float]) -> Float64Array:
    """Piecewise linear through the known points, flat below them, and above them on along the line of first and last.

    That line is kept between half and all of what growth in proportion would give: noise must not send it astray.
    """
    proportional = values[-1] / known[-1]
    slope = proportional
    if len(known) > 1:
        slope = (values[-1] - values[0]) / (known[-1] - known[0])
        slope = min(proportional, max(proportional / 2, slope))
    return np.interp(at, known, values) + slope * np.maximum(0.0, at - known[-1])
