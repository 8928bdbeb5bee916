"""Which waiting rows make the next batch. Pure: a function of what waits, what batches cost, and a worker's share.

What waits is seen run-length encoded: rows that are padded to the same length cost the same, so the pool is a short
list of (length, count), ascending by length, however many rows there are. A plan says how many rows to take of which
lengths; within a length those that are due first go first.

Every plan takes at least one row of the anchor, the length at which the request that is due first waits. Hence the
bound on waiting: see `scheduler`.

`OptimalCover` runs that batch of a cheapest cover of the whole pool which holds the anchor (`cover`, also for how large
pools are covered in less time). Nothing in it knows whether padding is dear (a CPU) or runs are (a GPU): only the cost
table does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...runtime.base import Int32Array
from .buckets import Bucket
from .cost import Costs
from .cover import cheapest_cover


@dataclass(frozen=True, slots=True)
class PoolView:
    """The waiting rows of one model, by padded length. The arrays are the pool's own: read, do not keep."""

    lengths: Int32Array
    """[levels] ascending padded lengths; the whole ladder."""
    counts: npt.NDArray[np.int64]
    """[levels] rows waiting at each."""
    arrivals: npt.NDArray[np.float64]
    """[levels] when the row of each that is due first was admitted; +inf where none waits."""
    deadlines: npt.NDArray[np.float64]
    """[levels] the deadline of that row; +inf where there is none."""
    anchor: int
    """The level of which at least one row must be taken."""
    unpadded_level: int
    """From this level on, each row is run alone: see `Ladder`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch: some rows of some levels, all padded to the bucket's length."""

    bucket: Bucket
    takes: tuple[tuple[int, int], ...]
    """(level, rows), each level at most once, rows > 0."""


class Planner(Protocol):
    """Picks the next batch of a model. Pure; called under the scheduler's lock, so it must be quick."""

    def __call__(self, pool: PoolView, costs: Costs, *, share_s: float, now: float) -> Plan:
        """A plan that takes at least one row of ``pool.anchor``.

        ``share_s``: after this many seconds all workers would be done with all that waits and runs, if they could
        share it evenly; +inf where there is but one of them.
        """
        ...


class PackingPlanner(Planner, Protocol):
    """The planner of a model whose rows are not padded: only the tokens of all of them tell the shape of a batch."""

    def bucket(self, tokens: int, rows: int, longest: int) -> Bucket:
        """(1, tokens computed) of a batch of this many tokens and rows, the longest of them so long."""
        ...


@dataclass(frozen=True, slots=True)
class OptimalCover:
    """The batch of a cheapest cover of the pool that holds the anchor."""

    most_s: float = math.inf
    """No batch of several rows shall take longer."""

    def __call__(self, pool: PoolView, costs: Costs, *, share_s: float, now: float) -> Plan:
        """Plans as much of the pool as can touch the anchor."""
        if pool.anchor >= pool.unpadded_level:  # long rows run alone, in the fused kernel that takes no padding
            return Plan(Bucket(1, int(pool.lengths[pool.anchor])), ((pool.anchor, 1),))
        waiting: list[int] = np.flatnonzero(pool.counts).tolist()
        if len(waiting) == 1 and pool.counts[pool.anchor] == 1:  # the commonest pool: nothing to decide
            return Plan(Bucket(1, int(pool.lengths[pool.anchor])), ((pool.anchor, 1),))
        levels = [level for level in waiting if level < pool.unpadded_level]
        counts: list[int] = pool.counts[levels].tolist()
        most = _within(_most_rows(levels, pool, costs, share_s), levels, costs, self.most_s)
        best = [min(costs.best_rows(level), rows) for level, rows in zip(levels, most, strict=True)]
        anchor = levels.index(pool.anchor)
        if counts[anchor] >= 2 * best[anchor]:
            # Whatever the rest of the plan, a batch of its own at its best size is part of it.
            return Plan(Bucket(best[anchor], int(pool.lengths[pool.anchor])), ((pool.anchor, best[anchor]),))
        # Full batches at a length's best size are in every cheapest cover: only what is left over needs a search.
        left = [count if count < 2 * rows else rows + count % rows for count, rows in zip(counts, best, strict=True)]
        batches = cheapest_cover(left, [costs.batch_seconds(level) for level in levels], most)
        return _batch_with(anchor, levels, left, batches, pool)


def _most_rows(levels: list[int], pool: PoolView, costs: Costs, share_s: float) -> list[int]:
    """Most rows of a batch of each level: what the table holds, but about a worker's share where there are several.

    So all workers come to the end of what waits together, and none is left with a long batch while others have nothing.
    Rounded to the nearest: one row too many at the end costs more than a batch, and rounding down costs more batches.
    No piece is cut so small that its rows cost much more.
    """
    most = [len(costs.batch_seconds(level)) - 1 for level in levels]
    if share_s == math.inf:
        return most
    fair: list[float] = np.floor(share_s / costs.row_seconds()[levels] + _HALF).tolist()
    return [
        limit if rows >= limit else min(limit, max(int(rows), costs.worthwhile_rows(int(pool.lengths[level]))))
        for level, limit, rows in zip(levels, most, fair, strict=True)
    ]


def _within(most: list[int], levels: list[int], costs: Costs, most_s: float) -> list[int]:
    """The same, but no more rows than can be done in ``most_s``; at least one."""
    if most_s == math.inf:
        return most
    table_s = most_s / costs.factor
    return [
        min(rows, max(1, bisect_right(costs.batch_seconds(level), table_s) - 1))
        for level, rows in zip(levels, most, strict=True)
    ]


def _batch_with(
    anchor: int, levels: list[int], counts: list[int], batches: list[tuple[int, int]], pool: PoolView
) -> Plan:
    """The batch of the cover that holds most rows of the anchor; all positions are in the list of waiting levels."""
    ends = list(accumulate(counts))  # rows up to and including each level, in the sorted pool
    low, high = ends[anchor] - counts[anchor], ends[anchor]
    # Several batches may hold rows of the anchor. The one with most of them leaves the least of the request behind.
    begin, chosen, held = 0, (0, 0), 0
    for _, rows in batches:
        overlap = min(high, begin + rows) - max(low, begin)
        if overlap > held:
            chosen, held = (begin, begin + rows), overlap
        begin += rows
    begin, end = chosen
    takes = [
        (level, min(end, upto) - max(begin, upto - count))
        for level, count, upto in zip(levels, counts, ends, strict=True)
        if min(end, upto) > max(begin, upto - count)
    ]
    return Plan(Bucket(end - begin, int(pool.lengths[takes[-1][0]])), tuple(takes))


_HALF = 0.5 + 1e-9
"""Rounds to the nearest; a share of exactly half a row must not fall to either side by the last bit of a sum."""
