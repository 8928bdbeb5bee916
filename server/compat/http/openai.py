"""OpenAI's API: embeddings and the list of models; and its errors, which vLLM has too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from ... import errors
from ...engine.results import ModelInfo
from .answers import Answer, json_answer
from .errors import Failure, Family
from .routes import Asked, Route, Services


class ErrorBody(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


def error_of(failure: Failure) -> ErrorBody:
    """The error as OpenAI writes it."""
    return {
        "message": failure.message,
        "type": _type_of(failure.status),
        "param": failure.field,
        "code": _code_of(failure),
    }


OPENAI = Family("openai", lambda failure: {"error": error_of(failure)})


class Model(TypedDict):
    """A loaded model."""

    id: str
    object: str
    created: int
    owned_by: str


class ModelList(TypedDict):
    """All loaded models."""

    object: str
    data: list[Model]


class OpenAiModels:
    """``/v1/models``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        yield Route(
            method="GET",
            path="/v1/models",
            call=self.list_models,
            family=OPENAI,
            summary="Every loaded model (OpenAI)",
            answer_type=ModelList,
        )
        yield Route(
            method="GET",
            path="/v1/models/{model...}",
            call=self.get_model,
            family=OPENAI,
            summary="One loaded model (OpenAI)",
            answer_type=Model,
        )

    async def list_models(self, asked: Asked[Any]) -> Answer:
        """By name."""
        models = self._services.open_engine.models
        data = [_model(models[name]) for name in sorted(models)]
        return await json_answer(ModelList(object="list", data=data))

    async def get_model(self, asked: Asked[Any]) -> Answer:
        """One of them."""
        found = self._services.open_engine.find(asked.params["model"])
        asked.model = found.name
        return await json_answer(_model(found))


def _model(info: ModelInfo) -> Model:
    return {"id": info.name, "object": "model", "created": 0, "owned_by": "pairwire"}


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _code_of(failure: Failure) -> str | None:
    match failure.error:
        case errors.ModelNotFound():
            return "model_not_found"
        case errors.Overloaded():
            return "rate_limit_exceeded"
        case errors.DeadlineExceeded():
            return "timeout"
    return None
