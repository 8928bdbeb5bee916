"""Answers -> results, checked: an answer that does not fit its request is the server's fault, not an odd array."""

from __future__ import annotations

import math

import numpy as np

from pairwire.v1 import embedding_pb2, manifest_pb2, model_pb2, scoring_pb2, usage_pb2

from .errors import NotSupported, ServerFault
from .requests import Part
from .results import (
    EmbedResult,
    FirstStageReport,
    Model,
    ModelDetails,
    ModelKind,
    RankedDocument,
    RerankResult,
    ScoreResult,
    SparseEmbedResult,
    Timing,
    UnscoredReason,
    Usage,
    VectorArray,
)
from .zero_shot import ClassifyResult

_BITS: dict[embedding_pb2.Encoding.ValueType, int] = {
    embedding_pb2.ENCODING_FLOAT32: 32,
    embedding_pb2.ENCODING_FLOAT16: 16,
    embedding_pb2.ENCODING_INT8: 8,
    embedding_pb2.ENCODING_BINARY: 1,
}
"""Of a number on its way; a vector takes whole bytes."""
_UNSCORED: dict[scoring_pb2.Unscored.ValueType, UnscoredReason] = {
    scoring_pb2.UNSCORED_DEADLINE: "deadline",
    scoring_pb2.UNSCORED_OVERLOADED: "overloaded",
}
_KINDS: dict[manifest_pb2.ModelKind.ValueType, ModelKind] = {
    manifest_pb2.MODEL_KIND_CROSS_ENCODER: "cross-encoder",
    manifest_pb2.MODEL_KIND_BI_ENCODER: "bi-encoder",
    manifest_pb2.MODEL_KIND_SPARSE_ENCODER: "sparse-encoder",
}


def score_result(
    part: Part[scoring_pb2.ScoreRequest], response: scoring_pb2.ScoreResponse, elapsed_s: float
) -> ScoreResult:
    """The result of one request.

    Raises:
        ServerFault: not one score for each pair and label.
    """
    scores = np.array(response.scores, dtype=np.float32)
    labels = tuple(response.labels)
    if not labels or len(scores) != part.count * len(labels):
        raise ServerFault(f"the server answered {len(scores)} scores with {len(labels)} labels for {part.count} pairs")
    return ScoreResult(
        scores=scores if len(labels) == 1 else scores.reshape(part.count, len(labels)),
        labels=labels,
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
    )


def rerank_result(
    part: Part[scoring_pb2.RerankRequest], response: scoring_pb2.RerankResponse, elapsed_s: float
) -> RerankResult:
    """The result of one request, with the caller's documents.

    Raises:
        ServerFault: not as many documents as asked for, or one that was not sent.
        NotSupported: the server left the first stage out.
    """
    documents = part.message.documents
    staged = part.message.HasField("first_stage")
    report = _first_stage_report(response, elapsed_s) if staged else None
    ranked_there = min(part.message.first_stage.keep, part.count) if staged else part.count
    wanted = min(part.message.top_k, ranked_there) if part.message.HasField("top_k") else ranked_there
    indices = {found.index for found in response.results}
    least = part.message.min_score if part.message.HasField("min_score") else -math.inf
    fewer = part.message.HasField("min_score") and len(indices) <= wanted
    unlike = len(response.results) != len(indices) or max(indices, default=0) >= part.count
    if unlike or (len(indices) != wanted and not fewer):
        raise ServerFault(f"the server ranked {sorted(indices)} of {part.count} documents, {wanted} were asked for")
    ranked = (
        RankedDocument(
            index=part.start + found.index,
            score=math.nan if found.unscored else found.score,
            document=documents[found.index],
            first_stage_score=found.first_stage_score if staged and found.HasField("first_stage_score") else None,
            unscored=_UNSCORED.get(found.unscored, "overloaded") if found.unscored else None,
        )
        for found in response.results
        if found.unscored or found.score >= least  # an older server does not know the field, and leaves out none
    )
    return RerankResult(
        results=tuple(ranked),
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
        first_stage=report,
        unscored=response.unscored,
        unscored_reason=response.unscored_reason,
    )


def _first_stage_report(response: scoring_pb2.RerankResponse, elapsed_s: float) -> FirstStageReport:
    if not response.HasField("first_stage"):
        raise NotSupported("the server ranked without the first stage that was asked for: it is older; upgrade it")
    found = response.first_stage
    return FirstStageReport(
        model=found.model,
        kept=found.kept,
        cached=found.cached,
        usage=usage(found.usage, 0),
        timing=timing(found.timing, elapsed_s),
    )


def classify_result(
    part: Part[scoring_pb2.ClassifyRequest], response: scoring_pb2.ClassifyResponse, elapsed_s: float
) -> ClassifyResult:
    """The result of one request, in the order of its labels.

    Raises:
        ServerFault: not one score for each text and label.
    """
    labels = tuple(part.message.candidate_labels)
    scores = np.full((part.count, len(labels)), np.nan, np.float32)
    for row, found in zip(scores, response.results, strict=False):
        for each in found.labels:
            if each.index < len(labels):
                row[each.index] = each.score
    if len(response.results) != part.count or np.isnan(scores).any():
        raise ServerFault(
            f"the server answered {len(response.results)} classifications for {part.count} texts, or left out some of "
            f"their {len(labels)} candidate labels"
        )
    return ClassifyResult(
        scores=scores,
        labels=labels,
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
    )


def embed_result(
    part: Part[embedding_pb2.EmbedRequest], response: embedding_pb2.EmbedResponse, elapsed_s: float
) -> EmbedResult:
    """The result of one request; the vectors are a fresh array.

    Raises:
        ServerFault: not one vector for each text, or an encoding or a length that was not asked for.
    """
    block, asked = response.embeddings, part.message
    if block.encoding != asked.encoding:
        raise ServerFault(f"the server answered vectors in encoding {block.encoding}, not {asked.encoding} as asked")
    if (
        block.rows != part.count
        or not block.dimensions
        or block.dimensions != (asked.dimensions or block.dimensions)
        or len(block.data) != block.rows * -(-block.dimensions * _BITS[asked.encoding] // 8)
    ):
        wanted = f" of {asked.dimensions} numbers" if asked.dimensions else ""
        raise ServerFault(
            f"the server answered {len(block.data)} bytes as {block.rows} vectors of {block.dimensions} numbers, "
            f"encoding {asked.encoding}, for {part.count} texts{wanted}"
        )
    return EmbedResult(
        embeddings=_vectors(block),
        dimensions=block.dimensions,
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
    )


def _vectors(block: embedding_pb2.Embeddings) -> VectorArray:
    """[rows, numbers or bytes] as the caller gets them: a copy, in this machine's byte order."""
    if block.encoding == embedding_pb2.ENCODING_INT8:
        return np.frombuffer(block.data, np.int8).reshape(block.rows, -1).copy()
    if block.encoding == embedding_pb2.ENCODING_BINARY:
        return np.frombuffer(block.data, np.uint8).reshape(block.rows, -1).copy()
    wire = "<f2" if block.encoding == embedding_pb2.ENCODING_FLOAT16 else "<f4"
    return np.frombuffer(block.data, wire).reshape(block.rows, -1).astype(np.float32)


def sparse_result(
    part: Part[embedding_pb2.EmbedSparseRequest], response: embedding_pb2.EmbedSparseResponse, elapsed_s: float
) -> SparseEmbedResult:
    """The result of one request; the arrays are fresh.

    Raises:
        ServerFault: not one row for each text, rows that do not fit, or an index beyond the dimensions.
    """
    block = response.embeddings
    counts = np.array(block.counts, np.uint32)
    total = int(counts.sum(dtype=np.int64))
    if len(counts) != part.count or not len(block.indices) == len(block.values) == 4 * total:
        raise ServerFault(
            f"the server answered {len(counts)} rows of {total} weights in {len(block.indices)} bytes of indices and "
            f"{len(block.values)} of values for {part.count} texts"
        )
    indices = np.frombuffer(block.indices, "<u4").astype(np.uint32)
    if total and int(indices.max()) >= block.dimensions:
        raise ServerFault(f"the server answered a weight at {indices.max()} of {block.dimensions} dimensions")
    return SparseEmbedResult(
        indices=indices,
        values=np.frombuffer(block.values, "<f4").astype(np.float32),
        counts=counts,
        dimensions=block.dimensions,
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
    )


def usage(found: usage_pb2.Usage, start: int) -> Usage:
    """The usage of a request whose inputs begin at ``start``."""
    return Usage(
        tokens=found.tokens,
        padded_tokens=found.padded_tokens,
        truncated_inputs=tuple(start + index for index in found.truncated_inputs),
    )


def timing(found: usage_pb2.Timing, elapsed_s: float) -> Timing:
    """The timing of one request."""
    return Timing(
        queue_s=found.queue_us / 1e6,
        tokenize_s=found.tokenize_us / 1e6,
        compute_s=found.compute_us / 1e6,
        elapsed_s=elapsed_s,
    )


def model(found: model_pb2.ModelSummary) -> Model:
    """A loaded model.

    Raises:
        ServerFault: of a kind that this client does not know.
    """
    kind = _KINDS.get(found.kind)
    if kind is None:
        raise ServerFault(
            f"model {found.name!r} is of kind {found.kind}, which this client does not know; upgrade pairwire"
        )
    return Model(
        name=found.name,
        kind=kind,
        variant=found.variant,
        provider=found.provider,
        max_length=found.max_length,
        workers=found.workers,
        intra_op_threads=found.intra_op_threads,
        bucket_lengths=tuple(found.bucket_lengths),
    )


def model_details(found: model_pb2.GetModelResponse) -> ModelDetails:
    """A loaded model with its manifest.

    Raises:
        ServerFault: as ``model``.
    """
    return ModelDetails(model=model(found.summary), manifest=found.manifest)
