"""What vLLM has beside OpenAI's API: ``/score`` and ``/classify``."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import msgspec
import numpy as np

from ...clock import wall_ms
from ...engine.off_loop import off_loop
from ...engine.outputs.heads import Activation
from ...engine.results import ModelInfo, ScoreOptions, ScoreResult
from ...errors import InvalidInput, WrongModelKind
from ...rpc.caller import caller
from ...rpc.texts import decode_text, decode_texts
from ..roles import Role
from .answers import Answer, encode
from .openai import OPENAI, TokenUsage, max_length, usage_of
from .reading import JsonReader
from .routes import Asked, Route, Services
from .texts import naming

Strings = str | list[str]


class Options(msgspec.Struct, kw_only=True):
    """How texts are scored."""

    model: str | None = None
    truncate_prompt_tokens: int | None = None
    use_activation: bool | None = None


class ScoreRequest(Options, kw_only=True):
    """Two texts or lists of texts: one with one, one with many, or each with its counterpart."""

    text_1: Strings | None = None
    text_2: Strings | None = None
    data_1: Strings | None = None
    data_2: Strings | None = None
    queries: Strings | None = None
    documents: Strings | None = None
    items: Strings | None = None


class ClassifyRequest(Options, kw_only=True):
    """Texts to classify."""

    input: Strings


class PairScore(TypedDict):
    """A pair's score."""

    index: int
    object: str
    score: float


class Scores(TypedDict):
    """Scores in input order."""

    id: str
    object: str
    created: int
    model: str
    data: list[PairScore]
    usage: TokenUsage


class Class(TypedDict):
    """The label that is most likely, and how likely each is."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classes(TypedDict):
    """Labels in input order."""

    id: str
    object: str
    created: int
    model: str
    data: list[Class]
    usage: TokenUsage


class Vllm:
    """``/score``, ``/v1/score`` and ``/classify``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        reader = JsonReader(ScoreRequest)
        for path in ("/score", "/v1/score"):
            yield Route.post(path, self.score, OPENAI, "Scores of pairs (vLLM)", reader, Scores)
        classify = JsonReader(ClassifyRequest)
        yield Route.post("/classify", self.classify, OPENAI, "Labels of texts (vLLM)", classify, Classes)

    async def score(self, asked: Asked[ScoreRequest]) -> Answer:
        """One score a pair."""
        request, limits = asked.body, self._services.limits
        found = self._services.find(asked, Role.RERANK, request.model)
        _check_one_label(found)
        (left, firsts), (right, seconds) = _sides(request)
        names = {"query": left, "documents": right, "pairs": right, "max_length": "truncate_prompt_tokens"}
        options, engine = _options(request), self._services.engine()
        seconds = await off_loop(asked.large, decode_texts, right, seconds, limits)
        with naming(names):
            if len(firsts) == 1:
                query = decode_text(left, firsts[0], limits)
                result = await engine.score_documents(
                    query, seconds, model=found.name, options=options, timeout_s=asked.timeout_s
                )
            else:
                firsts = await off_loop(asked.large, decode_texts, left, firsts, limits)
                _check_lengths(left, firsts, right, seconds)
                pairs = list(zip(firsts, seconds, strict=True))
                result = await engine.score(pairs, model=found.name, options=options, timeout_s=asked.timeout_s)
        scores = list(result.scores[:, 0])
        data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
        return Answer(encode(_list("score", result, data)))

    async def classify(self, asked: Asked[ClassifyRequest]) -> Answer:
        """The most likely label of each text."""
        request, limits = asked.body, self._services.limits
        found = self._services.find(asked, Role.PREDICT, request.model)
        given = [request.input] if isinstance(request.input, str) else request.input
        texts = await off_loop(asked.large, decode_texts, "input", given, limits)
        names = {"texts": "input", "max_length": "truncate_prompt_tokens"}
        if isinstance(request.input, str):
            names = {"texts[0]": "input", **names}
        with naming(names):
            result = await self._services.engine().score_texts(
                texts, model=found.name, options=_options(request), timeout_s=asked.timeout_s
            )
        best = np.argmax(result.scores, axis=1).tolist()
        labels = result.labels
        data = [
            {"index": index, "label": labels[at], "probs": scores, "num_classes": len(labels)}
            for index, (at, scores) in enumerate(zip(best, result.scores, strict=True))
        ]
        return Answer(encode(_list("classify", result, data)))


def _sides(request: ScoreRequest) -> tuple[tuple[str, list[str]], tuple[str, list[str]]]:
    """Both sides, and what the caller calls them."""
    for left, rights in (("text_1", ("text_2",)), ("data_1", ("data_2",)), ("queries", ("documents", "items"))):
        for right in rights:
            if getattr(request, left) is not None and getattr(request, right) is not None:
                return (left, _listed(left, getattr(request, left))), (right, _listed(right, getattr(request, right)))
    raise InvalidInput("text_1", "missing; give text_1 and text_2, or queries and documents")


def _listed(field: str, given: Strings) -> list[str]:
    if not given:
        raise InvalidInput.empty(field)
    return [given] if isinstance(given, str) else given


def _check_lengths(left: str, firsts: Sequence[str], right: str, seconds: Sequence[str]) -> None:
    if len(firsts) != len(seconds):
        raise InvalidInput(right, f"{len(seconds)} for {len(firsts)} of {left}; give one {left}, or as many of both")


def _check_one_label(found: ModelInfo) -> None:
    labels = found.manifest.labels
    if len(labels) != 1:
        raise WrongModelKind(
            f"model {found.name!r} has {len(labels)} labels and no one score; use /classify or /predict"
        )


def _options(request: Options) -> ScoreOptions:
    return ScoreOptions(
        activation=Activation.IDENTITY if request.use_activation is False else None,
        max_length=max_length(request.truncate_prompt_tokens),
        caller=caller(),
    )


def _list(what: str, result: ScoreResult, data: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"{what}-{secrets.token_hex(16)}",
        "object": "list",
        "created": wall_ms() // 1000,
        "model": result.model,
        "data": data,
        "usage": usage_of(result.usage.tokens),
    }
