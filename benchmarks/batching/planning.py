"""The scheduler's own time against the compute that it plans.

A pool is kept at a number of pairs: what a batch takes out of it is put back before the next one is asked for. The
time is processor time of the calling thread, so that a busy machine does not count; the compute is what the cost table
says.
Timed are the planner alone, and all that the lock is held for: admission, the next batch, its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from pairwire.server.engine.batching.cost import Costs
from pairwire.server.engine.batching.planner import OptimalCover, Plan, Planner, PoolView
from pairwire.server.engine.batching.pool import queue_rows
from pairwire.server.engine.batching.scheduler import BatchingRules, Scheduler
from pairwire.server.runtime.base import Int32Array

from .tables import Recording
from .workload import make_calls

POOLS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
"""Pairs that wait."""
_LEAST_S = 0.3
_LEAST_BATCHES = 20
"""Until both are reached batches are planned for one figure."""


class TimedPlanner:
    """A planner and its processor time so far."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.seconds = 0.0

    def __call__(self, pool: PoolView, costs: Costs, *, share_s: float, now: float) -> Plan:
        """The planner's plan."""
        started = time.thread_time()
        plan = self._planner(pool, costs, share_s=share_s, now=now)
        self.seconds += time.thread_time() - started
        return plan


def planning_time(recording: Recording, series: Sequence[Int32Array], pool: int, seed: int) -> dict[str, float]:
    """Time for a batch, and as a share of the batch's own seconds, with this many pairs waiting."""
    planner, ladder = TimedPlanner(OptimalCover()), recording.ladder()
    lane = BatchingRules(ladder, recording.engine_costs())
    scheduler: Scheduler[None] = Scheduler({"model": lane}, planner, workers=1, queue_tokens=2**62)
    for lengths in _stretches(series, pool, seed):
        scheduler.admit(queue_rows(ladder, "model", lengths, None), 0.0)
    truth = recording.truth()
    planned, spent, batches, now = 0.0, 0.0, 0, 0.0
    enough = time.thread_time() + _LEAST_S
    while batches < _LEAST_BATCHES or time.thread_time() < enough:
        started = time.thread_time()
        batch = scheduler.next_batch(now).batch
        spent += time.thread_time() - started
        assert batch is not None
        again = np.concatenate([piece.queued.lengths[piece.rows] for piece in batch.pieces])
        request = queue_rows(ladder, "model", again, None)  # outside of the lock in the engine, too
        seconds = truth(batch.rows, batch.bucket.length)
        now += seconds
        started = time.thread_time()
        scheduler.complete(batch, now)
        scheduler.admit(request, now)
        spent += time.thread_time() - started
        planned += seconds
        batches += 1
    return {
        "batches": batches,
        "plan_ms": 1e3 * planner.seconds / batches,
        "compute_ms": 1e3 * planned / batches,
        "plan_share": planner.seconds / planned,
        "scheduler_share": spent / planned,
    }


def _stretches(series: Sequence[Int32Array], pool: int, seed: int) -> Iterator[Int32Array]:
    """The lengths of this many pairs in all, in requests like those of the simulation."""
    left = pool
    for call in make_calls(series, pool, seed):
        if left:
            yield np.array(call.lengths[:left], dtype=np.int32)
            left -= min(left, len(call.lengths))
