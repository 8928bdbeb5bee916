"""The engine at one moment, from its parts."""

from __future__ import annotations

from .fleet import Fleet
from .open_requests import OpenRequests
from .results import EngineStatistics
from .running.score_cache import ScoreCache
from .running.worker import WorkerPool


def snapshot(
    workers: WorkerPool,
    requests: OpenRequests,
    scores: ScoreCache,
    fleet: Fleet,
    queue_tokens: int,
) -> EngineStatistics:
    """What `Engine.statistics` tells; ``queue_tokens`` is the queue's limit. May be called from any thread."""
    queue, unhealthy = workers.statistics()
    return EngineStatistics(
        workers=fleet.workers,
        queued_rows=queue.queued_rows,
        queued_tokens=queue.queued_tokens,
        queue_limit_tokens=queue_tokens,
        running_rows=queue.running_rows,
        running_batches=queue.running_batches,
        open_requests=requests.count,
        estimated_wait_s=queue.estimated_wait_s,
        capacity_tokens_per_s=queue.capacity_tokens_per_s,
        score_cache=scores.statistics(),
        draining=requests.draining,
        failed=workers.fatal is not None,
        models=fleet.statistics(queue, unhealthy),
    )
