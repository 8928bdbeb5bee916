"""Messages become plain values and results become messages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import Message

from pairwire.server.engine import Activation, Encoding, Priority, ScoreOptions, ScoreResult, Timing, Truncation, Usage
from pairwire.server.errors import InvalidInput
from pairwire.server.rpc import codec
from pairwire.v1 import embedding_pb2, scoring_pb2

USAGE = Usage(tokens=12, padded_tokens=4, truncated_inputs=(0, 2))
TIMING = Timing(queue_s=0.0015, tokenize_s=0.00000199, compute_s=2.0)


def test_unset_options_are_the_checkpoints_own() -> None:
    options = codec.decode_score_options(scoring_pb2.ScoreRequest())
    assert (options.activation, options.truncation, options.max_length) == (None, Truncation.LONGEST_FIRST, None)
    assert options.priority is Priority.NORMAL
    assert codec.decode_embed_options(embedding_pb2.EmbedRequest()).prompt_name is None


def test_set_options_are_read() -> None:
    request = scoring_pb2.RerankRequest(
        activation=scoring_pb2.ACTIVATION_SIGMOID,
        truncation=scoring_pb2.TRUNCATION_ONLY_SECOND,
        max_length=7,
        priority=scoring_pb2.PRIORITY_LOW,
    )
    options = codec.decode_score_options(request)
    assert (options.activation, options.truncation, options.max_length) == (
        Activation.SIGMOID,
        Truncation.ONLY_SECOND,
        7,
    )
    assert options.priority is Priority.LOW
    urgent = embedding_pb2.EmbedRequest(priority=scoring_pb2.PRIORITY_HIGH)
    assert codec.decode_embed_options(urgent).priority is Priority.HIGH
    assert codec.decode_embed_options(embedding_pb2.EmbedRequest(prompt_name="")).prompt_name == ""


@pytest.mark.parametrize("enum", [scoring_pb2.Activation, scoring_pb2.Truncation, scoring_pb2.Priority])
def test_every_value_of_an_enum_is_known(enum: object) -> None:
    field = enum.DESCRIPTOR.name.lower()  # type: ignore[attr-defined]  # generated wrappers share no type
    for number in enum.values():  # type: ignore[attr-defined]  # as above
        codec.decode_score_options(scoring_pb2.ScoreRequest(**{field: number}))


def test_every_encoding_is_known() -> None:
    found = [codec.decode_encoding(embedding_pb2.EmbedRequest(encoding=number)) for number in range(5)]
    assert found == [Encoding.FLOAT32, Encoding.FLOAT32, Encoding.FLOAT16, Encoding.INT8, Encoding.BINARY]
    assert embedding_pb2.Encoding.values() == [*range(5)]


@pytest.mark.parametrize(
    ("decode", "request_type"),
    [
        (codec.decode_score_options, scoring_pb2.ScoreRequest),
        (codec.decode_score_options, scoring_pb2.RerankRequest),
        (codec.decode_embed_options, embedding_pb2.EmbedRequest),
        (codec.decode_sparse_options, embedding_pb2.EmbedSparseRequest),
    ],
)
def test_a_prompt_is_a_name_or_a_text_and_an_empty_one_is_not_none(
    decode: Callable[[Message], ScoreOptions], request_type: Callable[..., Message]
) -> None:
    for fields, expected in (
        ({}, (None, None)),
        ({"prompt_name": "query"}, ("query", None)),
        ({"prompt": "find: "}, (None, "find: ")),
        ({"prompt": ""}, (None, "")),
    ):
        options = decode(request_type(**fields))
        assert (options.prompt_name, options.prompt) == expected
    with pytest.raises(InvalidInput, match=r"^prompt: set together with prompt_name 'query'; give one of them"):
        decode(request_type(prompt_name="query", prompt=""))


def test_what_is_left_out_of_vectors_is_the_models_own() -> None:
    options = codec.decode_embed_options(embedding_pb2.EmbedRequest())
    assert (options.dimensions, options.normalize) == (None, None)
    options = codec.decode_embed_options(embedding_pb2.EmbedRequest(dimensions=3, normalize=False))
    assert (options.dimensions, options.normalize) == (3, False)
    assert codec.decode_sparse_options(embedding_pb2.EmbedSparseRequest()).max_active_dims is None
    sparse = embedding_pb2.EmbedSparseRequest(max_active_dims=5, max_length=9, priority=scoring_pb2.PRIORITY_LOW)
    options = codec.decode_sparse_options(sparse)
    assert (options.max_active_dims, options.max_length, options.priority) == (5, 9, Priority.LOW)


def test_top_k_left_out_means_all() -> None:
    assert codec.decode_top_k(scoring_pb2.RerankRequest(documents=["a", "b"])) == 2
    assert codec.decode_top_k(scoring_pb2.RerankRequest(documents=["a", "b"], top_k=5)) == 5


def test_scores_travel_row_by_row_with_their_labels() -> None:
    scores = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    response = codec.encode_scores(ScoreResult(scores, ("x", "y", "z"), "m", USAGE, TIMING))
    assert list(response.scores) == [1, 2, 3, 4, 5, 6]
    assert list(response.labels) == ["x", "y", "z"]
    assert response.model == "m"
    assert list(response.usage.truncated_inputs) == [0, 2]
    assert (response.usage.tokens, response.usage.padded_tokens) == (12, 4)
    assert (response.timing.queue_us, response.timing.tokenize_us, response.timing.compute_us) == (1500, 1, 2_000_000)


def test_documents_are_echoed_only_where_asked() -> None:
    result = ScoreResult(np.array([[0.5], [2.0]], np.float32), ("x",), "m", USAGE, TIMING)
    with_text = codec.encode_ranking(result, 2, ["first", ""])
    assert [(each.index, each.score, each.document) for each in with_text.results] == [(1, 2.0, ""), (0, 0.5, "first")]
    assert all(each.HasField("document") for each in with_text.results)
    assert not any(each.HasField("document") for each in codec.encode_ranking(result, 2, None).results)


@pytest.mark.parametrize(
    ("field", "located"),
    [
        ("pairs[3].first", "text_pairs.pairs[3].first"),
        ("query", "text_pairs.query"),
        ("max_length", "max_length"),
        ("model", "model"),
    ],
)
def test_the_engines_fields_are_located_in_the_request(field: str, located: str) -> None:
    assert codec.below("text_pairs", InvalidInput(field, "reason")).message == f"{located}: reason"
