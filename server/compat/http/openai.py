"""OpenAI's API: embeddings and the list of models; and its errors, which vLLM has too."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, TypedDict, cast

import msgspec
import numpy as np

from ... import errors
from ...clock import wall_ms
from ...engine.off_loop import off_loop
from ...engine.outputs.vectors import INLINE_BYTES
from ...engine.results import EmbedOptions, EmbedResult, ModelInfo
from ...errors import InvalidInput
from ...rpc.caller import caller
from ...rpc.embedding import dimensions_of
from ...rpc.vectors import check_rows
from ..roles import Role
from .answers import Answer, encode, json_answer, server_timing
from .errors import Failure, Family
from .reading import JsonReader
from .routes import Asked, Route, Services
from .texts import TextsField, names_of, naming, read_texts

FLOAT_BYTES = 13
"""Of a float32 in JSON, comma included: 11 on average, seldom more than this."""


class ErrorBody(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAiError(TypedDict):
    """The answer to a request that failed."""

    error: ErrorBody


def error_of(failure: Failure) -> ErrorBody:
    """The error as OpenAI writes it."""
    return {
        "message": failure.message,
        "type": _type_of(failure.status),
        "param": "model" if isinstance(failure.error, errors.ModelNotFound) else failure.field,
        "code": _code_of(failure),
    }


OPENAI = Family("openai", lambda failure: {"error": error_of(failure)}, error_type=OpenAiError)


class EmbeddingsRequest(msgspec.Struct):
    """Texts or token ids to embed."""

    input: TextsField
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    output_dimension: int | None = None
    truncate_prompt_tokens: int | None = None


class TokenUsage(TypedDict):
    """What it cost."""

    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """A vector: numbers, or base64 of little-endian float32."""

    object: str
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    """Vectors in input order."""

    object: str
    data: list[Embedding]
    model: str
    usage: TokenUsage


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


class OpenAi:
    """``/v1/embeddings`` and ``/v1/models``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._created = wall_ms() // 1000

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        for path in ("/v1/embeddings", "/embeddings"):
            yield Route.post(
                path,
                self.embeddings,
                OPENAI,
                "Vectors of texts or token ids (OpenAI)",
                JsonReader(EmbeddingsRequest),
                Embeddings,
            )
        yield Route.get("/v1/models", self.list_models, OPENAI, "Every loaded model (OpenAI)", ModelList)
        yield Route.get("/v1/models/{model...}", self.get_model, OPENAI, "One loaded model (OpenAI)", Model)

    async def embeddings(self, asked: Asked[EmbeddingsRequest]) -> Answer:
        """Vectors in input order."""
        request, limits = asked.body, self._services.limits
        found = self._services.find(asked, Role.EMBED, request.model)
        as_base64 = _is_base64(request.encoding_format)
        options = EmbedOptions(
            dimensions=_dimensions(request), max_length=max_length(request.truncate_prompt_tokens), caller=caller()
        )
        given = await off_loop(asked.large, read_texts, "input", request.input, limits)
        if given.alone and not given.texts[0]:
            raise InvalidInput.empty("input")
        with naming({**names_of("input", given), "max_length": "truncate_prompt_tokens"}):
            width = dimensions_of(found, options)
            row_bytes = 4 * -(-4 * width // 3) if as_base64 else FLOAT_BYTES * width
            check_rows(len(given.texts), width, row_bytes, "base64" if as_base64 else "JSON", limits)
            result = await self._services.engine().embed(
                given.texts, model=found.name, options=options, timeout_s=asked.timeout_s
            )
        body = await off_loop(result.embeddings.nbytes > INLINE_BYTES, _encoded, result, as_base64)
        return Answer(body, headers=(server_timing(result.timing),))

    async def list_models(self, asked: Asked[Any]) -> Answer:
        """By name."""
        models = self._services.engine().models
        return await json_answer({"object": "list", "data": [self._model(models[name]) for name in sorted(models)]})

    async def get_model(self, asked: Asked[Any]) -> Answer:
        """One of them."""
        found = self._services.engine().find(asked.params["model"])
        asked.model = found.name
        return await json_answer(self._model(found))

    def _model(self, info: ModelInfo) -> Model:
        return {"id": info.name, "object": "model", "created": self._created, "owned_by": "pairwire"}


def usage_of(tokens: int) -> TokenUsage:
    """All tokens are the prompt's."""
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def max_length(truncate_prompt_tokens: int | None) -> int | None:
    """VLLM's limit of tokens; -1 there stands for the model's own.

    Raises:
        InvalidInput: it is no number of tokens.
    """
    if truncate_prompt_tokens is None or truncate_prompt_tokens == -1:
        return None
    if not 0 < truncate_prompt_tokens < 1 << 31:
        reason = f"{truncate_prompt_tokens} is no number of tokens; give one above 0, or -1 for the model's own limit"
        raise InvalidInput("truncate_prompt_tokens", reason)
    return truncate_prompt_tokens


def _is_base64(encoding_format: str | None) -> bool:
    if encoding_format not in (None, "float", "base64"):
        raise InvalidInput("encoding_format", f"{encoding_format[:40]!r} is not served here; use float or base64")
    return encoding_format == "base64"


def _dimensions(request: EmbeddingsRequest) -> int | None:
    dimensions = request.dimensions or request.output_dimension or None
    if dimensions is not None and dimensions < 0:
        raise InvalidInput("dimensions", f"{dimensions} is no number of dimensions; give one above 0, or leave it out")
    return dimensions


def _encoded(result: EmbedResult, as_base64: bool) -> bytes:
    rows = result.embeddings
    if as_base64:
        rows = rows.astype("<f4", copy=False)
        vectors: Iterable[Any] = (base64.b64encode(row.tobytes()).decode("ascii") for row in rows)
    else:
        vectors = np.ascontiguousarray(rows)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    answer = Embeddings(
        object="list", data=cast(list[Embedding], data), model=result.model, usage=usage_of(result.usage.tokens)
    )
    return encode(answer)


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status in (401, 403):
        return "authentication_error" if status == 401 else "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _code_of(failure: Failure) -> str | None:
    match failure.error:
        case errors.ModelNotFound():
            return "model_not_found"
        case errors.Unauthenticated():
            return "invalid_api_key"
        case errors.PermissionDenied():
            return "insufficient_permissions"
        case errors.Overloaded():
            return "rate_limit_exceeded"
        case errors.DeadlineExceeded():
            return "timeout"
    return None
