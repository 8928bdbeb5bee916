"""What text-embeddings-inference takes and gives, as types; fields that Pairwire has no use for are left out."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

from ..texts import Document, TextsField

PredictInputs = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 2},
                {
                    "type": "array",
                    "items": {
                        "type": "array",
                        "items": {"type": "string", "minLength": 1},
                        "minItems": 1,
                        "maxItems": 2,
                    },
                    "minItems": 1,
                },
            ]
        }
    ),
]
"""A text, a pair, or a list of lists of one or two texts."""


class TeiError(TypedDict):
    """The answer to a request that failed."""

    error: str
    error_type: str


class Reading(msgspec.Struct, kw_only=True):
    """How texts are read."""

    truncate: bool | None = None
    """Unset is true: what is too long is cut. Only an explicit false refuses it."""
    truncation_direction: str | None = None
    """left, Left, right or Right."""


class EmbedRequest(Reading, kw_only=True):
    """Texts or token ids, one or several."""

    inputs: TextsField
    normalize: bool | None = None
    prompt_name: str | None = None
    dimensions: int | None = None


class PredictRequest(Reading, kw_only=True):
    """A text, a pair as a list of two, or a list of lists of one or two."""

    inputs: PredictInputs
    raw_scores: bool | None = None


class RankRequest(Reading, kw_only=True):
    """A query and texts."""

    query: str | Document
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None


class SimilarityParameters(Reading, kw_only=True):
    """How the sentences are read."""

    prompt_name: str | None = None


class Sentences(msgspec.Struct):
    """One sentence and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityRequest(msgspec.Struct):
    """Sentences to compare."""

    inputs: Sentences
    parameters: SimilarityParameters | None = None


class TokenizeRequest(msgspec.Struct):
    """Texts to tokenise."""

    inputs: str | list[str]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


class DecodeRequest(msgspec.Struct):
    """Token ids of one text, or of several."""

    ids: list[int | list[int]]
    skip_special_tokens: bool | None = None


class Rank(TypedDict):
    """A text's place: the first is the best."""

    index: int
    score: float
    text: NotRequired[str]


class Prediction(TypedDict):
    """A label's score."""

    score: float
    label: str


class SparseValue(TypedDict):
    """A token that has weight."""

    index: int
    value: float


class Token(TypedDict):
    """A token, and what it covers: byte offsets, null for special ones."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(TypedDict):
    """The model and the limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
