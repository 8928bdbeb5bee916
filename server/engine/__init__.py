"""The engine: text in, scores and vectors out. Knows no network: it runs under gRPC, in process or in a batch job.

    engine.py      the one public class: Engine
    results.py     what callers give and get          config.py    how an engine uses the machine
    text.py        text -> token ids -> rows          heads.py     logits -> scores
    template.py    the special tokens around a row    truncation.py  what is cut off a too long input
    token_ids.py   what may stand for a text          rendering.py   a pair as one text, by a template
    rows.py        rows ready to be padded            rules.py     a checkpoint's own rules for text
    vocabulary.py  which tokens have an embedding
    sparse.py      dense rows -> indices and values   vectors.py   cut, unit length, int8, bits
    encodings.py   how vectors may be handed on
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
    first_stage.py retrieve, then rerank              open_requests.py  what a drain waits for
    similarity.py  how vectors are compared           vector_cache.py   vectors of earlier documents
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
    from .encodings import Encoding
    from .engine import Engine
    from .first_stage import FirstStage, FirstStageReport, StagedResult
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
        SparseOptions,
        SparseResult,
        Timing,
        Usage,
    )
    from .token_ids import TokenIds
    from .truncation import Truncation

_HOMES = {
    "Activation": "heads",
    "BatchEvent": "observer",
    "Clock": "clock",
    "EmbedOptions": "results",
    "EmbedResult": "results",
    "Encoding": "encodings",
    "Engine": "engine",
    "EngineConfig": "config",
    "EngineStatistics": "results",
    "FirstStage": "first_stage",
    "FirstStageReport": "first_stage",
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
    "SparseOptions": "results",
    "SparseResult": "results",
    "StagedResult": "first_stage",
    "SystemClock": "clock",
    "Timing": "results",
    "TokenIds": "token_ids",
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
    "Encoding",
    "Engine",
    "EngineConfig",
    "EngineStatistics",
    "FirstStage",
    "FirstStageReport",
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
    "SparseOptions",
    "SparseResult",
    "StagedResult",
    "SystemClock",
    "Timing",
    "TokenIds",
    "Truncation",
    "Usage",
    "build_model",
    "load_model",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
