"""What an engine's models mean for the health of each service that is made of them."""

from __future__ import annotations

from collections.abc import Mapping

from .compat import kserve, tei
from .engine.engine import Engine
from .engine.kinds import ModelKind
from .rpc.embedding import EmbeddingServicer
from .rpc.health import OVERALL, model_health_name
from .rpc.model import ModelServicer
from .rpc.scoring import ScoringServicer


def health_of(engine: Engine) -> Mapping[str, bool]:
    """Whether each service serves, and each model, by the name of its health."""
    healthy = {name: model.healthy for name, model in engine.statistics().models.items()}
    kinds = {name: info.kind for name, info in engine.models.items()}
    scorers = [ok for name, ok in healthy.items() if kinds.get(name) is ModelKind.CROSS_ENCODER]
    embedders = [ok for name, ok in healthy.items() if kinds.get(name) not in (ModelKind.CROSS_ENCODER, None)]
    works = bool(healthy) and all(healthy.values())
    return {
        OVERALL: works,
        ScoringServicer.service: bool(scorers) and all(scorers),
        EmbeddingServicer.service: bool(embedders) and all(embedders),
        ModelServicer.service: True,
        kserve.SERVICE: works,
        **tei.health_of(scorers, embedders),
        **{model_health_name(name): ok for name, ok in healthy.items()},
    }
