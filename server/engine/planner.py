"""Which waiting rows make the next batch. Pure: a function of what waits, what batches cost, and who is idle.

What waits is seen run-length encoded: rows that are padded to the same length cost the same, so the pool is a short
list of (length, count), ascending by length, however many rows there are. A plan says how many rows to take of which
lengths; within a length the oldest go first.

Every plan takes at least one row of the anchor, the length at which the scheduler's oldest request waits. Hence the
bound on waiting: a request is overtaken by nobody for longer than the rows that came before it take; see `scheduler`.

`AnchoredBudget`: as many rows of the anchor's length as the token budget holds, then rows of other lengths where the
cost table says that riding along is cheaper than a batch of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..runtime.base import Int32Array
from .buckets import Bucket
from .cost import CostTable


@dataclass(frozen=True, slots=True)
class PoolView:
    """The waiting rows of one model, by padded length. The arrays are the pool's own: read, do not keep."""

    lengths: Int32Array
    """[levels] ascending padded lengths; the whole ladder."""
    counts: npt.NDArray[np.int64]
    """[levels] rows waiting at each."""
    arrivals: npt.NDArray[np.float64]
    """[levels] when the oldest row of each was admitted; +inf where none waits."""
    deadlines: npt.NDArray[np.float64]
    """[levels] the deadline of that oldest row; +inf where there is none."""
    anchor: int
    """The level of which at least one row must be taken."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch: so many rows of so many levels, all padded to the bucket's length."""

    bucket: Bucket
    takes: tuple[tuple[int, int], ...]
    """(level, rows), each level at most once, rows > 0."""


class Planner(Protocol):
    """Picks the next batch of a model. Pure; called under the scheduler's lock, so it must be quick."""

    def __call__(self, pool: PoolView, costs: CostTable, *, idle_workers: int, now: float) -> Plan:
        """A plan that takes at least one row of ``pool.anchor``. ``idle_workers`` counts the one that asks."""
        ...


@dataclass(frozen=True, slots=True)
class AnchoredBudget:
    """The anchor's rows up to a token budget, and riders where the cost table says that it pays."""

    batch_tokens: int
    """Most tokens of a batch, padding included, unless one row alone is longer."""

    def __call__(self, pool: PoolView, costs: CostTable, *, idle_workers: int, now: float) -> Plan:
        """Looks at each waiting length once."""
        row_seconds = costs.row_seconds()
        length = int(pool.lengths[pool.anchor])
        most = max(1, self.batch_tokens // length)
        if idle_workers > 1:
            # Leave the others their share, but cut no piece so small that its rows cost much more.
            share = float(pool.counts @ row_seconds) / idle_workers
            fair = math.ceil(share / row_seconds[pool.anchor] - _ROUNDING)
            most = min(most, max(fair, costs.worthwhile_rows(length)))
        rows = min(int(pool.counts[pool.anchor]), most)
        takes = [(pool.anchor, rows)]
        waiting = np.flatnonzero(pool.counts)
        shorter = waiting[waiting < pool.anchor][::-1].tolist()
        longer = waiting[waiting > pool.anchor].tolist()
        for level in shorter:
            riders = min(int(pool.counts[level]), most - rows)
            if riders <= 0:
                break
            alone_s = riders * self._seconds_of_a_row(pool, costs, level)
            if costs.seconds(rows + riders, length) - costs.seconds(rows, length) >= alone_s:
                break  # still shorter rows would waste still more padding
            takes.append((level, riders))
            rows += riders
        for level in longer:
            wider = int(pool.lengths[level])
            riders = min(int(pool.counts[level]), self.batch_tokens // wider - rows, most - rows)
            if riders <= 0:
                break
            alone_s = riders * self._seconds_of_a_row(pool, costs, level)
            if costs.seconds(rows + riders, wider) - costs.seconds(rows, length) >= alone_s:
                break
            takes.append((level, riders))
            rows += riders
            length = wider
        return Plan(bucket=Bucket(rows, length), takes=tuple(takes))

    def _seconds_of_a_row(self, pool: PoolView, costs: CostTable, level: int) -> float:
        """What a waiting row of a level would cost in a batch of its own level."""
        length = int(pool.lengths[level])
        rows = min(int(pool.counts[level]), max(1, self.batch_tokens // length))
        return costs.seconds(rows, length) / rows


_ROUNDING = 1e-9
"""A share of exactly two rows must not become three by rounding."""
