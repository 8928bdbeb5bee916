"""text-embeddings-inference's requests and answers <-> plain values; pure functions.

Its defaults: what is too long is refused unless ``truncate`` says otherwise; vectors are of unit length; one logit goes
through a sigmoid and several through a softmax unless ``raw_scores`` asks for logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pairwire.foreign import tei_pb2

from ..engine.kinds import ModelKind
from ..engine.outputs.heads import Activation
from ..engine.results import EmbedResult, ModelInfo, ReadingOptions, ScoreResult, SparseResult
from ..engine.text.pieces import TokenisedText
from ..engine.text.truncation import Truncation, TruncationDirection
from ..errors import InvalidInput
from ..rpc.caller import caller
from ..rpc.codec import known_enum
from ..rpc.fields import with_block
from ..runtime.base import Float32Array
from .tei_cost import Cost

_DIRECTIONS: Mapping[int, TruncationDirection] = {
    tei_pb2.TRUNCATION_DIRECTION_RIGHT: TruncationDirection.RIGHT,
    tei_pb2.TRUNCATION_DIRECTION_LEFT: TruncationDirection.LEFT,
}
_EMBEDDINGS = tei_pb2.EmbedResponse.DESCRIPTOR.fields_by_name["embeddings"].number

Read = (
    tei_pb2.EmbedRequest
    | tei_pb2.EmbedSparseRequest
    | tei_pb2.PredictRequest
    | tei_pb2.PredictPairRequest
    | tei_pb2.RerankRequest
)


def reading(request: Read) -> ReadingOptions:
    """How texts are to be read.

    Raises:
        InvalidInput: a direction that there is none of.
    """
    direction = known_enum(
        "truncation_direction", request.truncation_direction, _DIRECTIONS, tei_pb2.TruncationDirection.items
    )
    return ReadingOptions(
        truncation=Truncation.LONGEST_FIRST if request.truncate else Truncation.ERROR,
        truncation_direction=direction,
        caller=caller(),
    )


def prompt_name_of(request: tei_pb2.EmbedRequest | tei_pb2.EmbedSparseRequest | tei_pb2.EncodeRequest) -> str | None:
    """The prompt that is asked for; None for the default one."""
    return request.prompt_name if request.HasField("prompt_name") else None


def activation_for(info: ModelInfo, activation: Activation, *, raw_scores: bool) -> Activation:
    """What turns logits into scores; ``activation`` is the checkpoint's own.

    A checkpoint with several independent labels keeps its sigmoid, where text-embeddings-inference has a softmax.
    """
    if raw_scores:
        return Activation.IDENTITY
    if len(info.manifest.labels) == 1 or activation is Activation.SIGMOID:
        return Activation.SIGMOID
    return Activation.SOFTMAX


def model_type_of(info: ModelInfo) -> tei_pb2.ModelType.ValueType:
    """What text-embeddings-inference calls such a model."""
    if info.kind is not ModelKind.CROSS_ENCODER:
        return tei_pb2.MODEL_TYPE_EMBEDDING
    return tei_pb2.MODEL_TYPE_RERANKER if len(info.manifest.labels) == 1 else tei_pb2.MODEL_TYPE_CLASSIFIER


def join_stream(messages: Sequence[tei_pb2.RerankStreamRequest]) -> tei_pb2.RerankRequest:
    """The request that the messages of a RerankStream are, at least one."""
    first = messages[0]
    for index, message in enumerate(messages):
        if message.query != first.query:
            raise InvalidInput(
                "query", f"message {index} of the stream has another query than the first; rank by one query a stream"
            )
    return tei_pb2.RerankRequest(
        query=first.query,
        texts=[message.text for message in messages],
        truncate=first.truncate,
        raw_scores=first.raw_scores,
        return_text=first.return_text,
        truncation_direction=first.truncation_direction,
    )


def best_first(scores: Float32Array) -> list[int]:
    """Indices of scores [documents], best first; equal ones by descending index, as text-embeddings-inference does."""
    order: list[int] = np.argsort(scores, kind="stable")[::-1].tolist()
    return order


def encode_vector(result: EmbedResult, cost: Cost) -> bytes:
    """The answer to Embed."""
    rest = tei_pb2.EmbedResponse(metadata=cost.message())
    vector = result.embeddings[0].astype("<f4", copy=False).tobytes()
    return b"".join(with_block(rest, _EMBEDDINGS, [vector]))


def encode_sparse(result: SparseResult, cost: Cost) -> tei_pb2.EmbedSparseResponse:
    """The answer to EmbedSparse."""
    response = tei_pb2.EmbedSparseResponse(metadata=cost.message())
    add = response.sparse_embeddings.add
    for index, value in zip(result.indices.tolist(), result.values.tolist(), strict=True):
        weight = add()
        weight.index = index
        weight.value = value
    return response


def encode_labels(result: ScoreResult, cost: Cost) -> tei_pb2.PredictResponse:
    """The answer to Predict and PredictPair: the likeliest label first."""
    response = tei_pb2.PredictResponse(metadata=cost.message())
    scores = result.scores[0]
    for index in best_first(scores):
        response.predictions.add(score=float(scores[index]), label=result.labels[index])
    return response


def encode_ranks(result: ScoreResult, cost: Cost, texts: Sequence[str] | None) -> tei_pb2.RerankResponse:
    """The answer to Rerank; with the texts where they are given."""
    response = tei_pb2.RerankResponse(metadata=cost.message())
    scores = result.scores[:, 0]
    best = best_first(scores)
    add = response.ranks.add
    for index, score in zip(best, scores[best].tolist(), strict=True):
        rank = add()
        rank.index = index
        rank.score = score
        if texts is not None:
            rank.text = texts[index]
    return response


def encode_tokens(found: TokenisedText) -> tei_pb2.EncodeResponse:
    """The answer to Tokenize."""
    response = tei_pb2.EncodeResponse()
    for index, (begin, end) in enumerate(found.byte_spans()):
        token = response.tokens.add(id=found.ids[index], text=found.covered(index), special=found.special[index])
        if not token.special:
            token.start, token.stop = begin, end
    return response
