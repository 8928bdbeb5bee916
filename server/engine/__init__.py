"""The engine: text in, scores and vectors out. Knows no network: it runs under gRPC, in process or in a batch job.

    engine.py         the one public class: Engine
    call.py           one call on its way, and the path it takes    anytime.py   one that takes what is ready in time
    text/      ->     text -> rows of token ids
    batching/  ->     which rows run next, and with which others
    running/   ->     threads that run batches, and who waits for them
    outputs/   ->     logits -> scores, vectors, sparse vectors
    models/           packages -> models, by name
    first_stage.py    retrieve, then rerank           vector_cache.py   vectors of earlier documents
    zero_shot.py      labels made up by the caller    kinds.py          what kinds of models there are
    results.py        what callers give and get       encodings.py      how vectors may be handed on
    tokens.py         text -> tokens and back         statistics.py     the engine at one moment
    config.py         how an engine uses the machine  observer.py       events for metrics and logs
    open_requests.py  what a drain waits for          cache.py          bytes by bytes, bounded
    off_loop.py       long work off the event loop    watchdog.py       ends runs that hang

The folders stand in the order of a request's way. Names are loaded when first used, so that reading a configuration
does not load a tokenizer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..clock import Clock, SimClock, SystemClock
    from .batching.priority import Priority
    from .config import EngineConfig
    from .encodings import Encoding
    from .engine import Engine
    from .first_stage import FirstStage, FirstStageReport, StagedResult
    from .kinds import ModelKind
    from .models.building import build_model
    from .models.loading import load_model
    from .models.model import Model
    from .observer import BatchEvent, Observer, Outcome, RequestEvent
    from .outputs.heads import Activation
    from .results import (
        ClassifyOptions,
        ClassifyResult,
        EmbedOptions,
        EmbedResult,
        EngineStatistics,
        ModelInfo,
        ModelStatistics,
        ReadingOptions,
        ScoreOptions,
        ScoreResult,
        SparseOptions,
        SparseResult,
        Timing,
        Unscored,
        UnscoredReason,
        Usage,
    )
    from .text.pieces import TokenisedText
    from .text.token_ids import TokenIds
    from .text.truncation import Truncation, TruncationDirection

_HOMES = {
    "Activation": ".outputs.heads",
    "BatchEvent": ".observer",
    "ClassifyOptions": ".results",
    "ClassifyResult": ".results",
    "Clock": "..clock",
    "EmbedOptions": ".results",
    "EmbedResult": ".results",
    "Encoding": ".encodings",
    "Engine": ".engine",
    "EngineConfig": ".config",
    "EngineStatistics": ".results",
    "FirstStage": ".first_stage",
    "FirstStageReport": ".first_stage",
    "Model": ".models.model",
    "ModelInfo": ".results",
    "ModelKind": ".kinds",
    "ModelStatistics": ".results",
    "Observer": ".observer",
    "Outcome": ".observer",
    "Priority": ".batching.priority",
    "ReadingOptions": ".results",
    "RequestEvent": ".observer",
    "ScoreOptions": ".results",
    "ScoreResult": ".results",
    "SimClock": "..clock",
    "SparseOptions": ".results",
    "SparseResult": ".results",
    "StagedResult": ".first_stage",
    "SystemClock": "..clock",
    "Timing": ".results",
    "TokenIds": ".text.token_ids",
    "TokenisedText": ".text.pieces",
    "Truncation": ".text.truncation",
    "TruncationDirection": ".text.truncation",
    "Unscored": ".results",
    "UnscoredReason": ".results",
    "Usage": ".results",
    "build_model": ".models.building",
    "load_model": ".models.loading",
}

__all__ = [
    "Activation",
    "BatchEvent",
    "ClassifyOptions",
    "ClassifyResult",
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
    "ReadingOptions",
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
    "TokenisedText",
    "Truncation",
    "TruncationDirection",
    "Unscored",
    "UnscoredReason",
    "Usage",
    "build_model",
    "load_model",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)
