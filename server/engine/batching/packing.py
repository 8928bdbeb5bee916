"""Costs and batches of a runtime that computes no padding between rows: a bucket is (1, tokens).

Where rows of any lengths share a batch, a batch costs a fixed time and its tokens, whoever they belong to. The cheapest
way to do all that waits is then to run as much of it at once as fits, and what is left to decide is who goes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...runtime.packed import PackedShape, PackedShapes
from .buckets import Bucket, Ladder
from .cost import LEAST_SECONDS, Costs, Float64Array, learnt
from .planner import Plan, PoolView


class PackedCosts:
    """Seconds by tokens of a batch, from what each shape took. Not thread-safe: the scheduler's lock guards it."""

    def __init__(self, ladder: Ladder, measured: Mapping[PackedShape, float]) -> None:
        """``ladder``: the lengths of rows. Of shapes with equal tokens the dearest counts.

        Raises:
            ValueError: nothing was measured.
        """
        if not measured:
            raise ValueError("costs of packed batches need at least one measured shape")
        seconds: dict[int, float] = {}
        for shape, took in measured.items():
            seconds[shape.tokens] = max(took, seconds.get(shape.tokens, 0.0))
        self._tokens = np.array(sorted(seconds), dtype=np.float64)
        # Noise must not make more tokens look cheaper than fewer.
        self._seconds = np.maximum.accumulate(np.maximum([seconds[int(n)] for n in self._tokens], LEAST_SECONDS))
        self._lengths = np.array(ladder.lengths, dtype=np.int64)
        self._most = int(self._tokens[-1])
        self._factor = 1.0
        self._row_seconds = self._lengths * float(self._seconds[-1] / self._tokens[-1])

    @property
    def factor(self) -> float:
        """What live batches take, relative to the measured shapes."""
        return self._factor

    def seconds(self, rows: int, length: int) -> float:
        """Predicted seconds of one run of rows times length tokens."""
        return self._base(rows * length) * self._factor

    def row_seconds(self) -> Float64Array:
        """[levels] predicted seconds of a row in a full batch."""
        return np.asarray(self._row_seconds * self._factor, dtype=np.float64)

    def batch_seconds(self, level: int) -> tuple[float, ...]:
        """Seconds by number of rows, from 0 up to a full batch of that length; the moving factor is left out."""
        length = int(self._lengths[level])
        return (0.0, *(self._base(rows * length) for rows in range(1, self.best_rows(level) + 1)))

    def best_rows(self, level: int) -> int:
        """Rows of a full batch."""
        return max(1, self._most // int(self._lengths[level]))

    def worthwhile_rows(self, length: int) -> int:
        """As ``best_rows``: every row more makes the others cheaper."""
        return max(1, self._most // length)

    def learn(self, rows: int, length: int, seconds: float) -> None:
        """Takes in what a batch really took."""
        self._factor = learnt(self._factor, seconds / self._base(rows * length))

    def _base(self, tokens: int) -> float:
        at = min(int(np.searchsorted(self._tokens, tokens)), len(self._seconds) - 1)
        return float(self._seconds[at])


@dataclass(frozen=True, slots=True)
class FullestBatch:
    """As much of what waits as a batch holds: first of the anchor's length, then of the others as they came.

    The anchor is what is due first, so priorities and deadlines count once a batch.
    """

    shapes: PackedShapes
    most_s: float = math.inf
    """No batch but of the smallest shape shall take longer."""

    def __call__(self, pool: PoolView, costs: Costs, *, share_s: float, now: float) -> Plan:
        """Takes no part of a batch for other workers: they share one device."""
        waiting = np.flatnonzero(pool.counts)
        order: list[int] = waiting[np.argsort(pool.arrivals[waiting], kind="stable")].tolist()
        order.remove(pool.anchor)
        tokens, rows, longest = 0, 0, 0
        takes = []
        most_tokens, most_rows = self._most_tokens(costs), self.shapes.most_rows
        for level in (pool.anchor, *order):
            length = int(pool.lengths[level])
            room = self.shapes.tokens[-1] if not rows and length > most_tokens else most_tokens
            count = min(int(pool.counts[level]), (room - tokens) // length, most_rows - rows)
            if room > most_tokens:
                count = min(count, 1)
            if count > 0:
                takes.append((level, count))
                tokens, rows, longest = tokens + count * length, rows + count, max(longest, length)
        return Plan(self.bucket(tokens, rows, longest), tuple(takes))

    def _most_tokens(self, costs: Costs) -> int:
        if self.most_s == math.inf:
            return self.shapes.tokens[-1]
        return max(tokens for tokens in self.shapes.tokens if self._is_quick(tokens, costs))

    def _is_quick(self, tokens: int, costs: Costs) -> bool:
        return tokens == self.shapes.tokens[0] or costs.seconds(1, tokens) <= self.most_s

    def bucket(self, tokens: int, rows: int, longest: int) -> Bucket:
        """(1, tokens of the smallest shape that holds them). A plan's own is of rows as long as their levels."""
        return Bucket(1, self.shapes.fit(tokens, rows, longest).tokens)
