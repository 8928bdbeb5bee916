"""pairwire.v1.ScoringService on an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from google.protobuf.message import Message

from pairwire.v1 import scoring_pb2

from ..config import RequestLimits
from ..engine.off_loop import off_loop
from ..engine.results import ScoreResult
from ..engine.text.token_ids import TokenIds
from ..errors import InvalidInput
from . import codec, texts, zero_shot
from .first_stage import decode_first_stage, encode_staged_ranking
from .method import EngineSource, Method, Methods

P = ParamSpec("P")


class ScoringServicer:
    """Scores pairs, ranks documents, classifies texts."""

    service = "pairwire.v1.ScoringService"

    def __init__(self, engine: EngineSource, limits: RequestLimits) -> None:
        self._engine = engine
        self._limits = limits

    @property
    def methods(self) -> Methods:
        """All RPCs of the service."""
        return (
            Method("Score", scoring_pb2.ScoreRequest, self.score),
            Method("Rerank", scoring_pb2.RerankRequest, self.rerank),
            Method("Classify", scoring_pb2.ClassifyRequest, self.classify),
        )

    async def score(
        self, request: scoring_pb2.ScoreRequest, timeout_s: float | None, large: bool
    ) -> scoring_pb2.ScoreResponse:
        """Scores in input order."""
        chosen = request.WhichOneof("input")
        if chosen is None:
            raise InvalidInput("input", "not set; give text_pairs, query_documents or token_id_pairs")
        try:
            if chosen == "text_pairs":
                result = await self._score_pairs(request, timeout_s, large)
            elif chosen == "token_id_pairs":
                result = await self._score_token_pairs(request, timeout_s, large)
            else:
                result = await self._score_documents(request, timeout_s, large)
        except InvalidInput as error:
            raise codec.below(chosen, error) from None
        return codec.encode_scores(result)

    async def rerank(self, request: scoring_pb2.RerankRequest, timeout_s: float | None, large: bool) -> bytes:
        """Documents by descending score."""
        engine, options = self._engine(), codec.decode_score_options(request)
        top_k, least = codec.decode_top_k(request), codec.decode_min_score(request)
        query, documents = await off_loop(large, self._documents, request, request)
        shown = documents if request.return_documents else None
        if request.HasField("first_stage"):
            stage = decode_first_stage(request.first_stage)
            staged = await engine.retrieve_and_rerank(
                query,
                documents,
                first_stage=stage,
                model=request.model,
                options=options,
                timeout_s=timeout_s,
                partial_ok=request.partial_ok,
            )
            return await off_loop(large, _bytes_of, encode_staged_ranking, staged, top_k, shown, least)
        result = await engine.rerank(
            query,
            documents,
            model=request.model,
            options=options,
            timeout_s=timeout_s,
            partial_ok=request.partial_ok,
        )
        return await off_loop(large, _bytes_of, codec.encode_ranking, result, top_k, shown, least)

    async def classify(self, request: scoring_pb2.ClassifyRequest, timeout_s: float | None, large: bool) -> bytes:
        """Candidate labels of each text by descending score."""
        engine, options = self._engine(), zero_shot.decode_classify_options(request)
        texts, labels = await off_loop(
            large,
            zero_shot.decode_classified,
            request.texts,
            request.candidate_labels,
            options.hypothesis_template,
            self._limits,
        )
        result = await engine.classify(texts, labels, model=request.model, options=options, timeout_s=timeout_s)
        return await off_loop(large, _bytes_of, zero_shot.encode_classification, result, labels)

    async def _score_pairs(
        self, request: scoring_pb2.ScoreRequest, timeout_s: float | None, large: bool
    ) -> ScoreResult:
        options = codec.decode_score_options(request)
        pairs = await off_loop(large, self._pairs, request)
        return await self._engine().score(pairs, model=request.model, options=options, timeout_s=timeout_s)

    async def _score_token_pairs(
        self, request: scoring_pb2.ScoreRequest, timeout_s: float | None, large: bool
    ) -> ScoreResult:
        options = codec.decode_score_options(request)
        pairs = await off_loop(large, self._token_pairs, request)
        return await self._engine().score(pairs, model=request.model, options=options, timeout_s=timeout_s)

    async def _score_documents(
        self, request: scoring_pb2.ScoreRequest, timeout_s: float | None, large: bool
    ) -> ScoreResult:
        options = codec.decode_score_options(request)
        query, documents = await off_loop(large, self._documents, request, request.query_documents)
        return await self._engine().score_documents(
            query, documents, model=request.model, options=options, timeout_s=timeout_s
        )

    def _pairs(self, request: scoring_pb2.ScoreRequest) -> list[tuple[str, str]]:
        pairs = texts.decode_pairs("pairs", request.text_pairs.pairs, self._limits)
        texts.check_prompt(request.prompt, len(pairs), self._limits)
        return pairs

    def _token_pairs(self, request: scoring_pb2.ScoreRequest) -> list[tuple[TokenIds, TokenIds]]:
        return texts.decode_token_pairs("pairs", request.token_id_pairs.pairs, self._limits)

    def _documents(
        self,
        request: scoring_pb2.ScoreRequest | scoring_pb2.RerankRequest,
        given: scoring_pb2.QueryDocuments | scoring_pb2.RerankRequest,
    ) -> tuple[str, list[str]]:
        query = texts.decode_text("query", given.query, self._limits)
        documents = texts.decode_texts("documents", given.documents, self._limits)
        texts.check_prompt(request.prompt, len(documents), self._limits)
        return query, documents


def _bytes_of(encode: Callable[P, Message], *args: P.args, **kwargs: P.kwargs) -> bytes:
    """The answer that ``encode`` makes: where it shows the documents, it is as large as the request."""
    return encode(*args, **kwargs).SerializeToString()
