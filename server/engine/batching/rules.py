"""How batches of one model are made: its lengths, what batches cost, and who plans them."""

from __future__ import annotations

from dataclasses import dataclass

from .buckets import Ladder
from .cost import Costs
from .planner import PackingPlanner


@dataclass(frozen=True, eq=False, slots=True)
class BatchingRules:
    """How batches of one model are made: their shapes, what they cost, who picks them."""

    ladder: Ladder
    costs: Costs
    planner: PackingPlanner | None = None
    """What makes its batches, where its rows are not padded."""
