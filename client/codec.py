"""Answers -> results, checked: an answer that does not fit its request is the server's fault, not an odd array."""

from __future__ import annotations

import numpy as np

from pairwire.v1 import embedding_pb2, manifest_pb2, model_pb2, scoring_pb2, usage_pb2

from .errors import ServerFault
from .requests import Part
from .results import (
    EmbedResult,
    Model,
    ModelDetails,
    ModelKind,
    RankedDocument,
    RerankResult,
    ScoreResult,
    Timing,
    Usage,
)

_DTYPES: dict[embedding_pb2.Encoding.ValueType, np.dtype[np.float16] | np.dtype[np.float32]] = {
    embedding_pb2.ENCODING_UNSPECIFIED: np.dtype("<f4"),
    embedding_pb2.ENCODING_FLOAT32: np.dtype("<f4"),
    embedding_pb2.ENCODING_FLOAT16: np.dtype("<f2"),
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
    """
    documents = part.message.documents
    wanted = min(part.message.top_k, part.count) if part.message.HasField("top_k") else part.count
    indices = {found.index for found in response.results}
    if len(response.results) != wanted or len(indices) != wanted or max(indices) >= part.count:
        raise ServerFault(f"the server ranked {sorted(indices)} of {part.count} documents, {wanted} were asked for")
    ranked = (
        RankedDocument(index=part.start + found.index, score=found.score, document=documents[found.index])
        for found in response.results
    )
    return RerankResult(
        results=tuple(ranked),
        model=response.model,
        usage=usage(response.usage, part.start),
        timing=timing(response.timing, elapsed_s),
    )


def embed_result(
    part: Part[embedding_pb2.EmbedRequest], response: embedding_pb2.EmbedResponse, elapsed_s: float
) -> EmbedResult:
    """The result of one request; the vectors are a fresh array.

    Raises:
        ServerFault: not one vector for each text, or an encoding that was not asked for.
    """
    block = response.embeddings
    dtype = _DTYPES.get(block.encoding)
    if dtype is None:
        raise ServerFault(f"the server answered vectors in encoding {block.encoding}, which this client does not read")
    if (
        block.rows != part.count
        or not block.dimensions
        or len(block.data) != part.count * block.dimensions * dtype.itemsize
    ):
        raise ServerFault(
            f"the server answered {len(block.data)} bytes as {block.rows} vectors of {block.dimensions} {dtype.name} "
            f"for {part.count} texts"
        )
    vectors = np.frombuffer(block.data, dtype).reshape(block.rows, block.dimensions)
    return EmbedResult(
        embeddings=vectors.astype(np.float32),
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
