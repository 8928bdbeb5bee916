"""pairwire.v1.ModelService on an engine."""

from __future__ import annotations

from pairwire.v1 import model_pb2

from . import codec
from .method import EngineSource, Method, Methods


class ModelServicer:
    """Tells which models are served."""

    service = "pairwire.v1.ModelService"

    def __init__(self, engine: EngineSource) -> None:
        self._engine = engine

    @property
    def methods(self) -> Methods:
        """All RPCs of the service."""
        return (
            Method("ListModels", model_pb2.ListModelsRequest, self.list_models),
            Method("GetModel", model_pb2.GetModelRequest, self.get_model),
        )

    async def list_models(
        self, request: model_pb2.ListModelsRequest, timeout_s: float | None, large: bool
    ) -> model_pb2.ListModelsResponse:
        """Every loaded model, by name."""
        models = self._engine().models
        return model_pb2.ListModelsResponse(models=[codec.encode_summary(models[name]) for name in sorted(models)])

    async def get_model(
        self, request: model_pb2.GetModelRequest, timeout_s: float | None, large: bool
    ) -> model_pb2.GetModelResponse:
        """One model with its manifest."""
        info = self._engine().find(request.model)
        return model_pb2.GetModelResponse(summary=codec.encode_summary(info), manifest=info.manifest)
