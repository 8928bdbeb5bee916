"""Messages <-> plain values, with every check of a request but for its texts (texts.py); pure functions.

What the engine checks itself (a prompt's name, ``max_length`` against the model, what does not fit) is left
to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypedDict, TypeVar

from pairwire.v1 import embedding_pb2, model_pb2, scoring_pb2, usage_pb2

from ..engine.batching.priority import Priority
from ..engine.encodings import Encoding
from ..engine.kinds import InputType
from ..engine.models.manifest import WIRE_KINDS
from ..engine.outputs.heads import Activation
from ..engine.outputs.ranking import rank
from ..engine.results import (
    EmbedOptions,
    ModelInfo,
    ScoreOptions,
    ScoreResult,
    SparseOptions,
    Timing,
    Unscored,
    UnscoredReason,
    Usage,
)
from ..engine.text.truncation import Truncation, TruncationDirection
from ..errors import InvalidInput
from ..runtime.base import CudaInfo
from .caller import caller
from .texts import Prompted

T = TypeVar("T")

Readable: TypeAlias = Prompted | scoring_pb2.ClassifyRequest
"""Requests that say how their texts are read."""

_ACTIVATIONS: Mapping[int, Activation | None] = {
    scoring_pb2.ACTIVATION_UNSPECIFIED: None,
    scoring_pb2.ACTIVATION_IDENTITY: Activation.IDENTITY,
    scoring_pb2.ACTIVATION_SIGMOID: Activation.SIGMOID,
    scoring_pb2.ACTIVATION_SOFTMAX: Activation.SOFTMAX,
}
_TRUNCATIONS: Mapping[int, Truncation] = {
    scoring_pb2.TRUNCATION_UNSPECIFIED: Truncation.LONGEST_FIRST,
    scoring_pb2.TRUNCATION_LONGEST_FIRST: Truncation.LONGEST_FIRST,
    scoring_pb2.TRUNCATION_ONLY_SECOND: Truncation.ONLY_SECOND,
    scoring_pb2.TRUNCATION_ERROR: Truncation.ERROR,
    scoring_pb2.TRUNCATION_ONLY_FIRST: Truncation.ONLY_FIRST,
}
_DIRECTIONS: Mapping[int, TruncationDirection | None] = {
    scoring_pb2.TRUNCATION_DIRECTION_UNSPECIFIED: None,
    scoring_pb2.TRUNCATION_DIRECTION_RIGHT: TruncationDirection.RIGHT,
    scoring_pb2.TRUNCATION_DIRECTION_LEFT: TruncationDirection.LEFT,
}
_PRIORITIES: Mapping[int, Priority] = {
    scoring_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    scoring_pb2.PRIORITY_LOW: Priority.LOW,
    scoring_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    scoring_pb2.PRIORITY_HIGH: Priority.HIGH,
}
_INPUT_TYPES: Mapping[int, InputType | None] = {
    embedding_pb2.INPUT_TYPE_UNSPECIFIED: None,
    embedding_pb2.INPUT_TYPE_QUERY: InputType.QUERY,
    embedding_pb2.INPUT_TYPE_DOCUMENT: InputType.DOCUMENT,
}
_UNSCORED: Mapping[UnscoredReason, scoring_pb2.Unscored.ValueType] = {
    UnscoredReason.DEADLINE: scoring_pb2.UNSCORED_DEADLINE,
    UnscoredReason.OVERLOADED: scoring_pb2.UNSCORED_OVERLOADED,
}
_ENCODINGS: Mapping[int, Encoding] = {
    embedding_pb2.ENCODING_UNSPECIFIED: Encoding.FLOAT32,
    embedding_pb2.ENCODING_FLOAT32: Encoding.FLOAT32,
    embedding_pb2.ENCODING_FLOAT16: Encoding.FLOAT16,
    embedding_pb2.ENCODING_INT8: Encoding.INT8,
    embedding_pb2.ENCODING_BINARY: Encoding.BINARY,
}


def decode_score_options(request: scoring_pb2.ScoreRequest | scoring_pb2.RerankRequest) -> ScoreOptions:
    """How to score.

    Raises:
        InvalidInput: a number that an enum does not have, or two prompts.
    """
    return ScoreOptions(
        **_reading(request),
        activation=known_enum("activation", request.activation, _ACTIVATIONS, scoring_pb2.Activation.items),
    )


def decode_embed_options(request: embedding_pb2.EmbedRequest) -> EmbedOptions:
    """How to embed.

    Raises:
        InvalidInput: a number that an enum does not have, or two prompts.
    """
    return EmbedOptions(
        **_reading(request),
        dimensions=request.dimensions or None,
        normalize=request.normalize if request.HasField("normalize") else None,
    )


def decode_sparse_options(request: embedding_pb2.EmbedSparseRequest) -> SparseOptions:
    """How to embed sparsely.

    Raises:
        InvalidInput: a number that an enum does not have, or two prompts.
    """
    return SparseOptions(
        **_reading(request),
        max_active_dims=request.max_active_dims or None,
        input_type=known_enum("input_type", request.input_type, _INPUT_TYPES, embedding_pb2.InputType.items),
    )


def decode_encoding(request: embedding_pb2.EmbedRequest) -> Encoding:
    """How the vectors are to travel.

    Raises:
        InvalidInput: a number that the enum does not have.
    """
    return known_enum("encoding", request.encoding, _ENCODINGS, embedding_pb2.Encoding.items)


def decode_truncation(request: Readable) -> Truncation:
    """What happens to what is too long.

    Raises:
        InvalidInput: a number that the enum does not have.
    """
    return known_enum("truncation", request.truncation, _TRUNCATIONS, scoring_pb2.Truncation.items)


def decode_direction(request: Readable) -> TruncationDirection | None:
    """Which end is cut off; None for the model's own.

    Raises:
        InvalidInput: a number that the enum does not have.
    """
    direction = request.truncation_direction
    return known_enum("truncation_direction", direction, _DIRECTIONS, scoring_pb2.TruncationDirection.items)


def decode_priority(request: Readable) -> Priority:
    """What the request may overtake.

    Raises:
        InvalidInput: a number that the enum does not have.
    """
    return known_enum("priority", request.priority, _PRIORITIES, scoring_pb2.Priority.items)


def decode_top_k(request: scoring_pb2.RerankRequest) -> int:
    """How many documents to return.

    Raises:
        InvalidInput: less than one.
    """
    if not request.HasField("top_k"):
        return len(request.documents)
    if request.top_k < 1:
        raise InvalidInput(
            "top_k", f"{request.top_k} is not a number of documents; at least 1, or leave it out for all"
        )
    return request.top_k


def decode_min_score(request: scoring_pb2.RerankRequest) -> float | None:
    """The lowest score of a document that is returned; None for any.

    Raises:
        InvalidInput: NaN, which is not above or below anything.
    """
    if not request.HasField("min_score"):
        return None
    if math.isnan(request.min_score):
        raise InvalidInput("min_score", "NaN is no score; give a number, or leave it out for all documents")
    return request.min_score


def below(parent: str, error: InvalidInput) -> InvalidInput:
    """The same error where the engine's ``pairs``, ``query`` and ``documents`` stand below a field of the request."""
    root = error.field.partition("[")[0]
    return InvalidInput(f"{parent}.{error.field}", error.reason) if root in ("pairs", "query", "documents") else error


def encode_scores(result: ScoreResult) -> scoring_pb2.ScoreResponse:
    """The answer to Score."""
    response = scoring_pb2.ScoreResponse(
        labels=result.labels, model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    response.scores.extend(result.scores.ravel().tolist())
    return response


def encode_ranking(
    result: ScoreResult, top_k: int, documents: Sequence[str] | None, min_score: float | None = None
) -> scoring_pb2.RerankResponse:
    """The answer to Rerank; with the texts where ``documents`` are given."""
    response = scoring_pb2.RerankResponse(
        model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    unscored = encode_unscored(result.unscored, response)
    scores = result.scores[:, 0]
    best = rank(scores, top_k, min_score)
    add = response.results.add
    for index, score in zip(best, scores[best].tolist(), strict=True):
        ranked = add()  # set field by field: keyword arguments cost three times as much
        ranked.index = index
        if math.isnan(score):
            ranked.unscored = unscored
        else:
            ranked.score = score
        if documents is not None:
            ranked.document = documents[index]
    return response


def encode_unscored(unscored: Unscored | None, response: scoring_pb2.RerankResponse) -> scoring_pb2.Unscored.ValueType:
    """Writes what an answer to Rerank lacks; what to write at each document without a score."""
    if unscored is None:
        return scoring_pb2.UNSCORED_UNSPECIFIED
    response.unscored = len(unscored.indices)
    response.unscored_reason = unscored.sentence
    return _UNSCORED[unscored.reason]


def encode_usage(usage: Usage) -> usage_pb2.Usage:
    """What a request cost."""
    return usage_pb2.Usage(
        tokens=usage.tokens, padded_tokens=usage.padded_tokens, truncated_inputs=usage.truncated_inputs
    )


def encode_timing(timing: Timing) -> usage_pb2.Timing:
    """Where the time went: seconds become whole microseconds."""
    return usage_pb2.Timing(
        queue_us=int(timing.queue_s * 1e6),
        tokenize_us=int(timing.tokenize_s * 1e6),
        compute_us=int(timing.compute_s * 1e6),
    )


def encode_summary(info: ModelInfo) -> model_pb2.ModelSummary:
    """A model in a few lines."""
    return model_pb2.ModelSummary(
        name=info.name,
        kind=WIRE_KINDS[info.kind],
        variant=info.variant,
        provider=info.runtime.provider,
        max_length=info.max_length,
        workers=info.workers,
        intra_op_threads=info.runtime.intra_op_threads,
        bucket_lengths=info.bucket_lengths,
        cuda=None if info.runtime.cuda is None else encode_cuda(info.runtime.cuda, info.runtime.device),
    )


def encode_cuda(info: CudaInfo, device: str) -> model_pb2.CudaSummary:
    """What a model found on its GPU."""
    return model_pb2.CudaSummary(
        device_id=info.device_id,
        device=device,
        driver=info.driver,
        cuda=info.cuda,
        cudnn=info.cudnn,
        attention_kernels=info.attention_kernels,
        graphs=info.graphs,
        eager_shapes=info.eager,
        eager_reason=info.eager_reason,
        memory_bytes=info.memory_bytes,
    )


class _Reading(TypedDict):
    """The fields of `ReadingOptions`."""

    prompt_name: str | None
    prompt: str | None
    truncation: Truncation
    truncation_direction: TruncationDirection | None
    max_length: int | None
    priority: Priority
    caller: str


def _reading(request: Prompted) -> _Reading:
    """How texts are to be read, which every request says in the same fields."""
    prompt_name, prompt = _prompts(request)
    return {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "truncation": decode_truncation(request),
        "truncation_direction": decode_direction(request),
        "max_length": request.max_length or None,
        "priority": decode_priority(request),
        "caller": caller(),
    }


def _prompts(request: Prompted) -> tuple[str | None, str | None]:
    """The prompt by its name and the prompt itself, of which at least one is None."""
    name = request.prompt_name if request.HasField("prompt_name") else None
    prompt = request.prompt if request.HasField("prompt") else None
    if name is not None and prompt is not None:
        raise InvalidInput("prompt", f"set together with prompt_name {name!r}; give one of them")
    return name, prompt


def known_enum(field: str, number: int, table: Mapping[int, T], members: Callable[[], Sequence[tuple[str, int]]]) -> T:
    """What an enum's number stands for; proto3 lets any number through.

    Raises:
        InvalidInput: nothing; the sentence lists the members.
    """
    try:
        return table[number]
    except KeyError:
        known = ", ".join(f"{name} ({value})" for name, value in members())
        raise InvalidInput(field, f"{number} is unknown; one of {known}") from None
