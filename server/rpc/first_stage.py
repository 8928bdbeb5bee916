"""Rerank with a first stage: message -> plain value, result -> message; pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pairwire.v1 import scoring_pb2

from ..engine.first_stage import FirstStage, FirstStageReport, StagedResult
from ..engine.outputs.ranking import rank
from .codec import encode_timing, encode_unscored, encode_usage


def decode_first_stage(message: scoring_pb2.FirstStage) -> FirstStage:
    """How a bi-encoder chooses.

    Raises:
        InvalidInput: ``keep`` is 0.
    """
    return FirstStage(
        model=message.model,
        keep=message.keep,
        query_prompt_name=message.query_prompt_name if message.HasField("query_prompt_name") else None,
        document_prompt_name=message.document_prompt_name if message.HasField("document_prompt_name") else None,
    )


def encode_staged_ranking(
    result: StagedResult, top_k: int, documents: Sequence[str] | None, min_score: float | None = None
) -> scoring_pb2.RerankResponse:
    """The answer to Rerank; with the texts where ``documents`` are given."""
    response = scoring_pb2.RerankResponse(
        model=result.model,
        usage=encode_usage(result.usage),
        timing=encode_timing(result.timing),
        first_stage=_encode_report(result.first_stage),
    )
    unscored = encode_unscored(result.unscored, response)
    scores, similarities = result.scores.tolist(), result.first_stage_scores.tolist()
    # Equal scores by ascending index, for the indices ascend.
    for at in rank(result.scores, top_k, min_score, otherwise=result.first_stage_scores):
        ranked = response.results.add()
        ranked.index = index = int(result.indices[at])
        if math.isnan(scores[at]):
            ranked.unscored = unscored
        else:
            ranked.score = scores[at]
        if not math.isnan(similarities[at]):
            ranked.first_stage_score = similarities[at]
        if documents is not None:
            ranked.document = documents[index]
    return response


def _encode_report(report: FirstStageReport) -> scoring_pb2.FirstStageReport:
    return scoring_pb2.FirstStageReport(
        model=report.model,
        kept=report.kept,
        cached=report.cached,
        usage=encode_usage(report.usage),
        timing=encode_timing(report.timing),
    )
