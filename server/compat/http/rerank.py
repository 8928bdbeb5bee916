"""Reranking as Cohere, Jina, vLLM and Infinity have it: one answer that satisfies the clients of all four.

``/rerank`` is TEI's too, which is told by its ``texts``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

import msgspec

from ...engine.off_loop import off_loop
from ...engine.outputs.heads import Activation
from ...engine.outputs.ranking import rank
from ...engine.results import ScoreOptions
from ...errors import InvalidInput
from ...rpc.caller import caller
from ...rpc.texts import decode_text
from ..roles import Role
from .answers import Answer, encode, server_timing
from .errors import Family
from .openai import ErrorBody, TokenUsage, error_of, max_length, usage_of
from .reading import JsonReader
from .routes import Asked, Route, Services
from .tei.common import TEI
from .tei.labels import Labels
from .tei.types import Rank, Reading, TeiError
from .texts import Document, naming, read_documents

_SEARCH_UNIT_DOCUMENTS = 100
"""Cohere bills by so many documents."""


class RerankError(TypedDict):
    """The answer to a request that failed: as Cohere, Jina and vLLM write it, all at once."""

    message: str
    detail: str
    error: ErrorBody


RERANK = Family(
    "rerank",
    lambda failure: {"message": failure.message, "detail": failure.message, "error": error_of(failure)},
    error_type=RerankError,
)


class _Either(Family):
    """Of ``/rerank``, until it is known whose request it is: TEI's own fields tell."""

    def status_of(self, error: BaseException) -> int:
        """As the family of the field has it."""
        return (TEI if _is_tei(error) else RERANK).status_of(error)


def _is_tei(error: BaseException) -> bool:
    return isinstance(error, InvalidInput) and error.field.startswith(("texts", "return_text", "truncat"))


EITHER = _Either(
    "rerank",
    lambda failure: (TEI if _is_tei(failure.error) else RERANK).body(failure),
    error_type=(RerankError, TeiError),
)


class RerankRequest(msgspec.Struct):
    """A query and the documents to rank."""

    query: str | Document
    documents: list[str | Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = None
    rank_fields: list[str] | None = None


class EitherRequest(Reading, kw_only=True):
    """What ``/rerank`` takes: ``documents`` for the answer of Cohere, Jina and vLLM, or ``texts`` for TEI's."""

    query: str | Document
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: int | None = None
    rank_fields: list[str] | None = None


class RankedDocument(TypedDict):
    """A document's text."""

    text: str


class Ranked(TypedDict):
    """A document's place: the first is the best."""

    index: int
    relevance_score: float
    document: NotRequired[RankedDocument]


class Reranked(TypedDict):
    """The documents by descending score."""

    id: str
    object: str
    model: str
    results: list[Ranked]
    usage: TokenUsage
    meta: dict[str, Any]


class Rerank:
    """``/rerank``, ``/v1/rerank``, ``/v2/rerank``."""

    def __init__(self, services: Services, labels: Labels) -> None:
        self._services = services
        self._labels = labels

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        reader = JsonReader(RerankRequest)
        summary = "Documents by descending relevance (Cohere, Jina, vLLM)"
        yield Route.post("/v1/rerank", self.rerank, RERANK, summary, reader, Reranked)
        yield Route.post("/v2/rerank", self.rerank, RERANK, summary, reader, Reranked)
        either = JsonReader(EitherRequest)
        yield Route.post(
            "/rerank", self.either, EITHER, f"{summary}, or with `texts` as TEI has it", either, (Reranked, list[Rank])
        )

    async def either(self, asked: Asked[EitherRequest]) -> Answer:
        """TEI's, or the others'."""
        request = asked.body
        if request.texts is not None:
            return await self._labels.rerank(asked)
        if request.documents is None:
            raise InvalidInput("documents", "missing; give documents, or texts for an answer as TEI writes it")
        return await self.rerank(asked)

    async def rerank(self, asked: Asked[Any]) -> Answer:
        """Documents by descending score."""
        request: RerankRequest = asked.body
        limits = self._services.limits
        found = self._services.find(asked, Role.RERANK, request.model)
        top_k, options = _top_k(request), _options(request)
        given = request.query if isinstance(request.query, str) else request.query.text
        query = decode_text("query", given, limits)
        documents = await off_loop(asked.large, read_documents, "documents", request.documents, limits)
        with naming({"max_length": "truncate_prompt_tokens"}):
            result = await self._services.engine().rerank(
                query, documents, model=found.name, options=options, timeout_s=asked.timeout_s
            )
        scores = result.scores[:, 0]
        best = rank(scores, top_k)
        rows: list[Any] = [
            {"index": index, "relevance_score": score} for index, score in zip(best, scores[best], strict=True)
        ]
        if request.return_documents:
            for row in rows:
                row["document"] = {"text": documents[row["index"]]}
        version = "2" if asked.path.startswith("/v2") else "1"
        answer: Reranked = {
            "id": secrets.token_hex(16),
            "object": "rerank",
            "model": result.model,
            "results": rows,
            "usage": usage_of(result.usage.tokens),
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"search_units": -(-len(documents) // _SEARCH_UNIT_DOCUMENTS)},
            },
        }
        body = await off_loop(asked.large and bool(request.return_documents), encode, answer)
        return Answer(body, headers=(server_timing(result.timing),))


def _top_k(request: RerankRequest) -> int | None:
    top_n = request.top_n
    if top_n is None or top_n == 0:  # vLLM's default
        return None
    if top_n < 0:
        raise InvalidInput("top_n", f"{top_n} is not a number of documents; at least 1, or leave it out for all")
    return top_n


def _options(request: RerankRequest) -> ScoreOptions:
    if request.rank_fields is not None and request.rank_fields != ["text"]:
        raise InvalidInput("rank_fields", "only the field text of a document is read here; put into it what counts")
    raw = request.raw_scores or request.use_activation is False
    return ScoreOptions(
        activation=Activation.IDENTITY if raw else None,
        max_length=max_length(request.truncate_prompt_tokens),
        caller=caller(),
    )
