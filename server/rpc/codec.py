"""Messages <-> plain values, with every check of a request; pure functions.

What the engine checks itself (a prompt's name, ``max_length`` against the model, what does not fit) is left
to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pairwire.v1 import embedding_pb2, manifest_pb2, model_pb2, scoring_pb2, usage_pb2

from ..config import RequestLimits
from ..engine.heads import Activation
from ..engine.priority import Priority
from ..engine.results import EmbedOptions, EmbedResult, ModelInfo, ModelKind, ScoreOptions, ScoreResult, Timing, Usage
from ..engine.truncation import Truncation
from ..errors import InvalidInput, ModelNotFound, WrongModelKind
from ..runtime.base import CudaInfo

T = TypeVar("T")

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
}
_PRIORITIES: Mapping[int, Priority] = {
    scoring_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    scoring_pb2.PRIORITY_LOW: Priority.LOW,
    scoring_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    scoring_pb2.PRIORITY_HIGH: Priority.HIGH,
}
_ENCODINGS: Mapping[int, tuple[embedding_pb2.Encoding.ValueType, str]] = {
    embedding_pb2.ENCODING_UNSPECIFIED: (embedding_pb2.ENCODING_FLOAT32, "<f4"),
    embedding_pb2.ENCODING_FLOAT32: (embedding_pb2.ENCODING_FLOAT32, "<f4"),
    embedding_pb2.ENCODING_FLOAT16: (embedding_pb2.ENCODING_FLOAT16, "<f2"),
}
_KINDS: Mapping[ModelKind, manifest_pb2.ModelKind.ValueType] = {
    ModelKind.CROSS_ENCODER: manifest_pb2.MODEL_KIND_CROSS_ENCODER,
    ModelKind.BI_ENCODER: manifest_pb2.MODEL_KIND_BI_ENCODER,
    ModelKind.SPARSE_ENCODER: manifest_pb2.MODEL_KIND_SPARSE_ENCODER,
}
_MOST_BYTES_OF_A_CHARACTER = 4


def decode_texts(field: str, texts: Sequence[str], limits: RequestLimits) -> list[str]:
    """A list of texts.

    Raises:
        InvalidInput: none, too many, or one that is too long.
    """
    _check_count(field, len(texts), limits)
    decoded = list(texts)
    _check_sizes(decoded, limits, lambda index: f"{field}[{index}]")
    return decoded


def decode_text(field: str, text: str, limits: RequestLimits) -> str:
    """One text.

    Raises:
        InvalidInput: it is too long.
    """
    _check_sizes((text,), limits, lambda _: field)
    return text


def decode_pairs(field: str, pairs: Sequence[scoring_pb2.TextPair], limits: RequestLimits) -> list[tuple[str, str]]:
    """Pairs of texts.

    Raises:
        InvalidInput: none, too many, or a text that is too long.
    """
    _check_count(field, len(pairs), limits)
    decoded = [(pair.first, pair.second) for pair in pairs]
    _check_sizes([first for first, _ in decoded], limits, lambda index: f"{field}[{index}].first")
    _check_sizes([second for _, second in decoded], limits, lambda index: f"{field}[{index}].second")
    return decoded


def decode_score_options(request: scoring_pb2.ScoreRequest | scoring_pb2.RerankRequest) -> ScoreOptions:
    """How to score.

    Raises:
        InvalidInput: a number that an enum does not have.
    """
    return ScoreOptions(
        activation=_known("activation", request.activation, _ACTIVATIONS, scoring_pb2.Activation.items),
        truncation=_known("truncation", request.truncation, _TRUNCATIONS, scoring_pb2.Truncation.items),
        max_length=request.max_length or None,
        priority=_known("priority", request.priority, _PRIORITIES, scoring_pb2.Priority.items),
    )


def decode_embed_options(request: embedding_pb2.EmbedRequest) -> EmbedOptions:
    """How to embed.

    Raises:
        InvalidInput: a number that an enum does not have.
    """
    return EmbedOptions(
        prompt_name=request.prompt_name if request.HasField("prompt_name") else None,
        truncation=_known("truncation", request.truncation, _TRUNCATIONS, scoring_pb2.Truncation.items),
        max_length=request.max_length or None,
        priority=_known("priority", request.priority, _PRIORITIES, scoring_pb2.Priority.items),
    )


def decode_encoding(request: embedding_pb2.EmbedRequest) -> embedding_pb2.Encoding.ValueType:
    """How the vectors are to travel; never UNSPECIFIED.

    Raises:
        InvalidInput: a number that the enum does not have.
    """
    return _known("encoding", request.encoding, _ENCODINGS, embedding_pb2.Encoding.items)[0]


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


def find_model(models: Mapping[str, ModelInfo], name: str) -> ModelInfo:
    """The model of that name; the only one where the name is empty.

    Raises:
        ModelNotFound, InvalidInput: there is none; the sentence lists what there is.
    """
    known = ", ".join(repr(name) for name in sorted(models))
    if name:
        if name not in models:
            raise ModelNotFound(f"no model {name!r} is loaded; there is {known}")
        return models[name]
    if len(models) > 1:
        raise InvalidInput("model", f"empty, but there are several; name one of {known}")
    return next(iter(models.values()))


def check_can_rerank(models: Mapping[str, ModelInfo], name: str, options: ScoreOptions) -> None:
    """Documents are ranked by one number each. A model that the engine will refuse anyway is left to it.

    Raises:
        WrongModelKind: the model gives several numbers.
        InvalidInput: the activation makes every score 1.
    """
    scorers = [info for info in models.values() if info.kind is ModelKind.CROSS_ENCODER]
    fitting = [info for info in scorers if info.name == name or not name]
    if len(fitting) != 1:
        return
    labels = fitting[0].manifest.labels
    if len(labels) != 1:
        raise WrongModelKind(
            f"model {fitting[0].name!r} has {len(labels)} labels ({', '.join(labels)}), Rerank needs a model with one; "
            "call Score and sort by the label that matters"
        )
    if options.activation is Activation.SOFTMAX:
        raise InvalidInput(
            "activation", "softmax over one label makes every score 1; use identity or sigmoid, or leave it out"
        )


def below(parent: str, error: InvalidInput) -> InvalidInput:
    """The same error where the engine's ``pairs``, ``query`` and ``documents`` stand below a field of the request."""
    root = error.field.partition("[")[0]
    return InvalidInput(f"{parent}.{error.field}", error.reason) if root in ("pairs", "query", "documents") else error


def rank(scores: npt.NDArray[np.float32], top_k: int) -> list[int]:
    """Indices of the ``top_k`` best of scores float32 [documents], best first, equal scores by ascending index."""
    best: list[int] = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return best


def encode_scores(result: ScoreResult) -> scoring_pb2.ScoreResponse:
    """The answer to Score."""
    response = scoring_pb2.ScoreResponse(
        labels=result.labels, model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    response.scores.extend(result.scores.ravel().tolist())
    return response


def encode_ranking(result: ScoreResult, top_k: int, documents: Sequence[str] | None) -> scoring_pb2.RerankResponse:
    """The answer to Rerank; with the texts where ``documents`` are given."""
    response = scoring_pb2.RerankResponse(
        model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    scores = result.scores[:, 0]
    best = rank(scores, top_k)
    add = response.results.add
    for index, score in zip(best, scores[best].tolist(), strict=True):
        ranked = add()  # set field by field: keyword arguments cost three times as much
        ranked.index = index
        ranked.score = score
        if documents is not None:
            ranked.document = documents[index]
    return response


def encode_embeddings(result: EmbedResult, encoding: embedding_pb2.Encoding.ValueType) -> embedding_pb2.EmbedResponse:
    """The answer to Embed: one little-endian block, row-major."""
    rows, dimensions = result.embeddings.shape
    data = np.ascontiguousarray(result.embeddings, dtype=_ENCODINGS[encoding][1]).tobytes()
    return embedding_pb2.EmbedResponse(
        embeddings=embedding_pb2.Embeddings(data=data, rows=rows, dimensions=dimensions, encoding=encoding),
        model=result.model,
        usage=encode_usage(result.usage),
        timing=encode_timing(result.timing),
    )


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
        kind=_KINDS[info.kind],
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


def _check_count(field: str, count: int, limits: RequestLimits) -> None:
    if not count:
        raise InvalidInput(field, "empty; give at least one")
    if count > limits.max_items:
        raise InvalidInput(field, f"{count} exceed --max-items {limits.max_items}; send several smaller requests")


def _check_sizes(texts: Sequence[str], limits: RequestLimits, name: Callable[[int], str]) -> None:
    # Counting bytes means encoding: only where the number of characters leaves a doubt.
    if max(map(len, texts)) * _MOST_BYTES_OF_A_CHARACTER <= limits.max_text_bytes:
        return
    for index, text in enumerate(texts):
        size = len(text.encode("utf-8"))
        if size > limits.max_text_bytes:
            raise InvalidInput(
                name(index), f"{size} bytes exceed --max-text-bytes {limits.max_text_bytes}; shorten or split the text"
            )


def _known(field: str, number: int, table: Mapping[int, T], members: Callable[[], Sequence[tuple[str, int]]]) -> T:
    """What an enum's number stands for; proto3 lets any number through."""
    try:
        return table[number]
    except KeyError:
        known = ", ".join(f"{name} ({value})" for name, value in members())
        raise InvalidInput(field, f"{number} is unknown; one of {known}") from None
