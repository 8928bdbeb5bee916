"""What a call is, before anybody sends it: its requests, how their answers are read, and how these become one result.

Both clients send what is prepared here; nothing here knows how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, TypeAlias, TypeVar

from pairwire.v1 import embedding_pb2, scoring_pb2

from . import codec, requests, results
from .first_stage import FirstStage
from .inputs import EmbedOptions, Given, Pair, ScoreOptions, SparseOptions
from .options import SplitLimits
from .requests import Part
from .results import EmbedResult, RerankResult, ScoreResult, SparseEmbedResult
from .zero_shot import ClassifyOptions, ClassifyResult, merge_classified

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

Rpc: TypeAlias = Literal["Score", "Rerank", "Classify", "Embed", "EmbedSparse"]


@dataclass(frozen=True, slots=True)
class Prepared(Generic[Q, R, T]):
    """A call of any size. ``Q`` is its request, ``R`` the answer to one, ``T`` what the caller gets."""

    rpc: Rpc
    parts: Iterator[Part[Q]]
    """Its requests, cut and checked while they are read: an InvalidInput may come at any of them."""
    decode: Callable[[Part[Q], R, float], T]
    """(request, answer, seconds since the call began) -> result."""
    merge: Callable[[list[T]], T]
    """The results of all parts, in order -> one."""


def score(
    pairs: Iterable[Pair], options: ScoreOptions, split: SplitLimits
) -> Prepared[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse, ScoreResult]:
    """Scores of pairs."""
    parts = requests.score_parts(pairs, options, split)
    return Prepared("Score", parts, codec.score_result, results.merge_scores)


def score_documents(
    query: str, documents: Iterable[Given], options: ScoreOptions, split: SplitLimits
) -> Prepared[scoring_pb2.ScoreRequest, scoring_pb2.ScoreResponse, ScoreResult]:
    """Scores of a query with each document."""
    parts = requests.score_documents_parts(query, documents, options, split)
    return Prepared("Score", parts, codec.score_result, results.merge_scores)


def rerank(
    query: str,
    documents: Iterable[Given],
    top_k: int | None,
    options: ScoreOptions,
    split: SplitLimits,
    first_stage: FirstStage | None,
    min_score: float | None = None,
    *,
    partial_ok: bool = False,
) -> Prepared[scoring_pb2.RerankRequest, scoring_pb2.RerankResponse, RerankResult]:
    """Documents by descending score."""
    parts = requests.rerank_parts(
        query, documents, top_k, options, split, first_stage, min_score, partial_ok=partial_ok
    )
    return Prepared("Rerank", parts, codec.rerank_result, partial(results.merge_ranked, top_k=top_k))


def classify(
    texts: Iterable[Given], candidate_labels: Iterable[Given], options: ClassifyOptions, split: SplitLimits
) -> Prepared[scoring_pb2.ClassifyRequest, scoring_pb2.ClassifyResponse, ClassifyResult]:
    """Scores of each candidate label for each text."""
    parts = requests.classify_parts(texts, candidate_labels, options, split)
    return Prepared("Classify", parts, codec.classify_result, merge_classified)


def embed(
    texts: Iterable[Given], options: EmbedOptions, split: SplitLimits
) -> Prepared[embedding_pb2.EmbedRequest, embedding_pb2.EmbedResponse, EmbedResult]:
    """Vectors of texts."""
    parts = requests.embed_parts(texts, options, split)
    return Prepared("Embed", parts, codec.embed_result, results.merge_embeddings)


def embed_sparse(
    texts: Iterable[Given], options: SparseOptions, split: SplitLimits
) -> Prepared[embedding_pb2.EmbedSparseRequest, embedding_pb2.EmbedSparseResponse, SparseEmbedResult]:
    """Sparse vectors of texts."""
    parts = requests.sparse_parts(texts, options, split)
    return Prepared("EmbedSparse", parts, codec.sparse_result, results.merge_sparse)
