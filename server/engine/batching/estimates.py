"""What work would take, by the cost tables alone: what batches really take is `pace`'s to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

import numpy as np

from .admission import Asked
from .buckets import Ladder
from .cost import Costs
from .planner import PackingPlanner
from .pool import P, QueuedRows
from .priority import Priority


@dataclass(frozen=True, eq=False, slots=True)
class BatchingRules:
    """How batches of one model are made: their shapes, what they cost, who picks them."""

    ladder: Ladder
    costs: Costs
    planner: PackingPlanner | None = None
    """What makes its batches, where its rows are not padded."""


class Estimates(Generic[P]):
    """Of all models of an engine."""

    def __init__(self, rules: Mapping[str, BatchingRules]) -> None:
        self._rules = rules
        self.row_s: dict[str, list[float]] = {
            name: (each.costs.row_seconds() / each.costs.factor).tolist() for name, each in rules.items()
        }
        """By model and level: seconds of a row in the best batch of its length."""

    def of(self, queued: QueuedRows[P]) -> Asked:
        """Rows that wait, or are about to."""
        row_s = self.row_s[queued.model]
        return Asked(
            caller=queued.caller,
            priority=queued.priority,
            deadline=queued.deadline,
            seconds=sum(rows.waiting * row_s[level] for level, rows in queued.by_level.items()),
            rows=queued.waiting,
            tokens=queued.tokens,
            batch_s=self.batch_s(queued.model, max(queued.by_level)),
        )

    def of_unread(
        self, model: str, caller: str, priority: Priority, deadline: float, *, rows: int, row_tokens: int
    ) -> tuple[Asked, float]:
        """Rows that have not been read yet, with so many tokens each; and what a row takes."""
        level = self._level(model, row_tokens)
        row_s = self.row_s[model][level]
        asked = Asked(
            caller=caller,
            priority=priority,
            deadline=deadline,
            seconds=rows * row_s,
            rows=rows,
            tokens=rows * row_tokens,
            batch_s=self.batch_s(model, level),
        )
        return asked, row_s

    def batch_s(self, model: str, level: int) -> float:
        """Seconds of a full batch."""
        return self._rules[model].costs.best_rows(level) * self.row_s[model][level]

    def best_tokens_per_s(self) -> float:
        """Of one worker, in full batches of the length that is best for it."""
        return max(
            length / row_s
            for name, rules in self._rules.items()
            for length, row_s in zip(rules.ladder.lengths, self.row_s[name], strict=True)
        )

    def _level(self, model: str, row_tokens: int) -> int:
        ladder = self._rules[model].ladder
        return int(ladder.levels(np.array([min(row_tokens, ladder.lengths[-1])], np.int32))[0])
