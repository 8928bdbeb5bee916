"""The engine: text in, scores and vectors out. Knows no network: it runs under gRPC, in process or in a batch job.

    engine.py      the one public class: Engine
    results.py     what callers give and get          config.py    how an engine uses the machine
    text.py        text -> token ids -> rows          heads.py     logits -> scores
    template.py    the special tokens around a row    truncation.py  what is cut off a too long input
    cache.py       bytes by bytes, bounded            score_cache.py scores of earlier requests
    catalog.py     which model answers
    loading.py     package -> Model                   model.py     what serves requests under one name
    buckets.py     the ladder of padded lengths       cost.py      what a batch costs
    cost_cache.py  the same, kept on disk
    packing.py     both of them for rows that are not padded
    cuda.py        package -> Model on a GPU
    pool.py        waiting rows, sorted by length     planner.py   which of them make the next batch
    scheduler.py   admission, order, deadlines        worker.py    threads that run batches
    priority.py    who may overtake whom              agenda.py    things in the order of their times
    call.py        one call on its way                texts.py     what it was given to read
    text_stage.py  where calls are tokenised          inflight.py  equal rows are computed once
    ticket.py      who waits for results              observer.py  events for metrics and logs
    clock.py       the time

Names are loaded when first used, so that reading a configuration does not load a tokenizer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import Clock, SimClock, SystemClock
    from .config import EngineConfig
    from .engine import Engine
    from .heads import Activation
    from .loading import build_model, load_model
    from .model import Model
    from .observer import BatchEvent, Observer, Outcome, RequestEvent
    from .priority import Priority
    from .results import (
        EmbedOptions,
        EmbedResult,
        EngineStatistics,
        ModelInfo,
        ModelKind,
        ModelStatistics,
        ScoreOptions,
        ScoreResult,
        Timing,
        Usage,
    )
    from .truncation import Truncation

_HOMES = {
    "Activation": "heads",
    "BatchEvent": "observer",
    "Clock": "clock",
    "EmbedOptions": "results",
    "EmbedResult": "results",
    "Engine": "engine",
    "EngineConfig": "config",
    "EngineStatistics": "results",
    "Model": "model",
    "ModelInfo": "results",
    "ModelKind": "results",
    "ModelStatistics": "results",
    "Observer": "observer",
    "Outcome": "observer",
    "Priority": "priority",
    "RequestEvent": "observer",
    "ScoreOptions": "results",
    "ScoreResult": "results",
    "SimClock": "clock",
    "SystemClock": "clock",
    "Timing": "results",
    "Truncation": "truncation",
    "Usage": "results",
    "build_model": "loading",
    "load_model": "loading",
}

__all__ = [
    "Activation",
    "BatchEvent",
    "Clock",
    "EmbedOptions",
    "EmbedResult",
    "Engine",
    "EngineConfig",
    "EngineStatistics",
    "Model",
    "ModelInfo",
    "ModelKind",
    "ModelStatistics",
    "Observer",
    "Outcome",
    "Priority",
    "RequestEvent",
    "ScoreOptions",
    "ScoreResult",
    "SimClock",
    "SystemClock",
    "Timing",
    "Truncation",
    "Usage",
    "build_model",
    "load_model",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
