"""The engine at one moment, from its parts."""

from __future__ import annotations

from collections.abc import Mapping

from .cache import ByteCache
from .first_stage import Stages
from .open_requests import OpenRequests
from .results import EngineStatistics, ModelInfo, ModelStatistics
from .running.score_cache import ScoreCache
from .running.worker import WorkerPool


def snapshot(
    workers: WorkerPool,
    requests: OpenRequests,
    stages: Stages,
    scores: ScoreCache,
    tokens: Mapping[str, ByteCache],
    models: Mapping[str, ModelInfo],
    queue_tokens: int,
) -> EngineStatistics:
    """What `Engine.statistics` tells; ``queue_tokens`` is the queue's limit. May be called from any thread."""
    queue, unhealthy = workers.statistics()
    shared = workers.shared_rows()
    return EngineStatistics(
        workers=next(iter(models.values())).workers,
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
        models={
            name: ModelStatistics(
                healthy=name not in unhealthy,
                queued_rows=work.queued_rows,
                queued_tokens=work.queued_tokens,
                running_rows=work.running_rows,
                shared_rows=shared[name],
                token_cache=tokens[name].statistics(),
                vector_cache=stages.cache_statistics(name),
                cuda=models[name].runtime.cuda,
            )
            for name, work in queue.models.items()
        },
    )
