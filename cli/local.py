"""The work in this process: the engine on an event loop of its own thread, behind the same methods as a server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from pairwire.batch.engine_options import classify_options, embed_options, score_options, sparse_options
from pairwire.batch.engine_thread import EngineThread
from pairwire.client.first_stage import FirstStage
from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.client.results import (
    EmbedResult,
    FirstStageReport,
    RankedDocument,
    RerankResult,
    ScoreResult,
    SparseEmbedResult,
    Timing,
    UnscoredReason,
    Usage,
    VectorArray,
)
from pairwire.client.zero_shot import ClassifyOptions, ClassifyResult
from pairwire.server.engine import encodings, first_stage, kinds, results
from pairwire.server.engine.outputs.ranking import rank
from pairwire.server.errors import InvalidInput

from .in_order import in_order
from .records import Query

T = TypeVar("T")

RUN = 256
"""Inputs that are given to the engine at once."""

IN_FLIGHT = 4
"""This many runs keep the engine's workers busy while the next are read; more would only fill its queue."""


class LocalBackend:
    """A `Backend` in this process."""

    def __init__(self, engine: EngineThread) -> None:
        self._engine = engine

    @classmethod
    @contextmanager
    def open(cls, *directories: Path) -> Iterator[LocalBackend]:
        """The backend over model packages; frees them in the end."""
        engine = EngineThread(*directories)
        try:
            yield cls(engine)
        finally:
            engine.close()

    def score(self, pairs: Iterable[tuple[str, str]], options: ScoreOptions) -> Iterator[ScoreResult]:
        """Scores of runs of pairs."""
        engine, chosen = self._engine.engine, score_options(options)

        async def run(start: int, pairs: list[tuple[str, str]]) -> ScoreResult:
            with _counting_from(start):
                found = await engine.score(pairs, model=options.model, options=chosen)
            return ScoreResult(
                scores=found.scores[:, 0] if len(found.labels) == 1 else found.scores,
                labels=found.labels,
                model=found.model,
                usage=_usage(found.usage, start),
                timing=_timing(found.timing),
            )

        return in_order(lambda part: self._engine.submit(run(*part)), _runs(pairs), IN_FLIGHT)

    def rerank(
        self,
        queries: Iterable[Query],
        top_k: int | None,
        options: ScoreOptions,
        first_stage: FirstStage | None = None,
        min_score: float | None = None,
        *,
        partial_ok: bool = False,
    ) -> Iterator[RerankResult]:
        """One ranking a query."""
        engine, chosen = self._engine.engine, score_options(options)

        async def answer(query: Query) -> RerankResult:
            if first_stage is not None:
                staged = await engine.retrieve_and_rerank(
                    query.query,
                    query.documents,
                    first_stage=_first_stage(first_stage),
                    model=options.model,
                    options=chosen,
                    partial_ok=partial_ok,
                )
                return _staged(query, staged, top_k, min_score)
            found = await engine.rerank(
                query.query, query.documents, model=options.model, options=chosen, partial_ok=partial_ok
            )
            return _ranked(query, found, top_k, min_score)

        return in_order(lambda query: self._engine.submit(answer(query)), queries, IN_FLIGHT)

    def classify(
        self, texts: Iterable[str], labels: Sequence[str], options: ClassifyOptions
    ) -> Iterator[ClassifyResult]:
        """Scores of labels for runs of texts."""
        engine, chosen = self._engine.engine, classify_options(options)

        async def run(start: int, texts: list[str]) -> ClassifyResult:
            with _counting_from(start, "texts"):
                found = await engine.classify(texts, labels, model=options.model, options=chosen)
            return ClassifyResult(
                scores=found.scores,
                labels=tuple(labels),
                model=found.model,
                usage=_usage(found.usage, start),
                timing=_timing(found.timing),
            )

        runs = _runs(texts, max(1, RUN // len(labels)))
        return in_order(lambda part: self._engine.submit(run(*part)), runs, IN_FLIGHT)

    def embed(self, texts: Iterable[str], options: EmbedOptions) -> Iterator[EmbedResult]:
        """Vectors of runs of texts."""
        engine = self._engine.engine
        chosen, encoding = embed_options(options), encodings.Encoding(options.encoding)
        info = engine.find(options.model, kinds.ModelKind.BI_ENCODER)
        encodings.check_encoding(encoding, info, chosen)

        async def run(start: int, texts: list[str]) -> EmbedResult:
            with _counting_from(start):
                found = await engine.embed(texts, model=info.name, options=chosen)
                vectors = encodings.encode_vectors(found.embeddings, encoding, info)
            return EmbedResult(
                embeddings=cast(VectorArray, vectors.astype(np.float32) if vectors.dtype == np.float16 else vectors),
                dimensions=found.embeddings.shape[1],
                model=found.model,
                usage=_usage(found.usage, start),
                timing=_timing(found.timing),
            )

        return in_order(lambda part: self._engine.submit(run(*part)), _runs(texts), IN_FLIGHT)

    def embed_sparse(self, texts: Iterable[str], options: SparseOptions) -> Iterator[SparseEmbedResult]:
        """Sparse vectors of runs of texts."""
        engine, chosen = self._engine.engine, sparse_options(options)

        async def run(start: int, texts: list[str]) -> SparseEmbedResult:
            with _counting_from(start):
                found = await engine.embed_sparse(texts, model=options.model, options=chosen)
            return SparseEmbedResult(
                indices=found.indices,
                values=found.values,
                counts=found.counts,
                dimensions=found.dimensions,
                model=found.model,
                usage=_usage(found.usage, start),
                timing=_timing(found.timing),
            )

        return in_order(lambda part: self._engine.submit(run(*part)), _runs(texts), IN_FLIGHT)


def _runs(items: Iterable[T], size: int = RUN) -> Iterator[tuple[int, list[T]]]:
    iterator, start = iter(items), 0
    while run := list(itertools.islice(iterator, size)):
        yield start, run
        start += len(run)


@contextmanager
def _counting_from(start: int, inputs: str = "") -> Iterator[None]:
    """Gives errors the index in the whole input; the engine numbers from the beginning of each run.

    ``inputs`` is the field that is cut into runs, where others have indices too.
    """
    try:
        yield
    except InvalidInput as error:
        kind, _, rest = error.field.partition("[")
        index, bracket, rest = rest.partition("]")
        counted = bracket and kind == (inputs or kind)
        field = f"{kind}[{start + int(index)}]{rest}" if counted else error.field
        raise InvalidInput(field, error.reason) from None


def _ranked(query: Query, found: results.ScoreResult, top_k: int | None, min_score: float | None) -> RerankResult:
    scores, missing = found.scores[:, 0], _missing(found.unscored)
    ranked = (
        RankedDocument(at, float(scores[at]), query.documents[at], unscored=missing.get(at))
        for at in rank(scores, top_k, min_score)
    )
    return RerankResult(
        results=tuple(ranked),
        model=found.model,
        usage=_usage(found.usage, 0),
        timing=_timing(found.timing),
        unscored=len(missing),
        unscored_reason=found.unscored.sentence if found.unscored else "",
    )


def _missing(unscored: results.Unscored | None) -> dict[int, UnscoredReason]:
    """Why, for each document without a score."""
    return {} if unscored is None else dict.fromkeys(unscored.indices, unscored.reason.value)


def _first_stage(stage: FirstStage) -> first_stage.FirstStage:
    return first_stage.FirstStage(
        model=stage.model,
        keep=stage.keep,
        query_prompt_name=stage.query_prompt_name,
        document_prompt_name=stage.document_prompt_name,
    )


def _staged(query: Query, found: first_stage.StagedResult, top_k: int | None, min_score: float | None) -> RerankResult:
    indices, missing = found.indices.tolist(), _missing(found.unscored)
    similarities = [None if math.isnan(each) else each for each in found.first_stage_scores.tolist()]
    ranked = (
        RankedDocument(
            index := indices[at],
            float(found.scores[at]),
            query.documents[index],
            similarities[at],
            missing.get(index),
        )
        for at in rank(found.scores, top_k, min_score, otherwise=found.first_stage_scores)
    )
    report = found.first_stage
    return RerankResult(
        results=tuple(ranked),
        model=found.model,
        usage=_usage(found.usage, 0),
        timing=_timing(found.timing),
        first_stage=FirstStageReport(
            report.model, report.kept, report.cached, _usage(report.usage, 0), _timing(report.timing)
        ),
        unscored=len(missing),
        unscored_reason=found.unscored.sentence if found.unscored else "",
    )


def _usage(found: results.Usage, start: int) -> Usage:
    return Usage(found.tokens, found.padded_tokens, tuple(start + index for index in found.truncated_inputs))


def _timing(found: results.Timing) -> Timing:
    elapsed_s = found.queue_s + found.tokenize_s + found.compute_s
    return Timing(found.queue_s, found.tokenize_s, found.compute_s, elapsed_s)
