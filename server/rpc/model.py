"""pairwire.v1.ModelService on an engine."""

from __future__ import annotations

from typing import Protocol

from pairwire.v1 import model_pb2

from ..engine.results import ModelInfo
from ..errors import InvalidInput
from . import codec
from .method import EngineSource, Method, Methods


class ModelControl(Protocol):
    """What changes which models are served, where that is allowed."""

    async def load(self, model: str, version: str = "") -> tuple[ModelInfo, bool]:
        """What serves then, and whether it is new; raises Pairwire's errors."""
        ...

    async def unload(self, model: str) -> None:
        """Raises Pairwire's errors."""
        ...


class ModelServicer:
    """Tells which models are served, and lets operators change it."""

    service = "pairwire.v1.ModelService"

    def __init__(self, engine: EngineSource, control: ModelControl) -> None:
        self._engine = engine
        self._control = control

    @property
    def methods(self) -> Methods:
        """All RPCs of the service."""
        return (
            Method("ListModels", model_pb2.ListModelsRequest, self.list_models),
            Method("GetModel", model_pb2.GetModelRequest, self.get_model),
            Method("LoadModel", model_pb2.LoadModelRequest, self.load_model),
            Method("UnloadModel", model_pb2.UnloadModelRequest, self.unload_model),
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

    async def load_model(
        self, request: model_pb2.LoadModelRequest, timeout_s: float | None, large: bool
    ) -> model_pb2.LoadModelResponse:
        """Serves a version of the repository."""
        info, changed = await self._control.load(_named(request.model), request.version)
        return model_pb2.LoadModelResponse(summary=codec.encode_summary(info), changed=changed)

    async def unload_model(
        self, request: model_pb2.UnloadModelRequest, timeout_s: float | None, large: bool
    ) -> model_pb2.UnloadModelResponse:
        """Serves a model no longer."""
        await self._control.unload(_named(request.model))
        return model_pb2.UnloadModelResponse()


def _named(model: str) -> str:
    if not model:
        raise InvalidInput("model", "empty; name one")
    return model
