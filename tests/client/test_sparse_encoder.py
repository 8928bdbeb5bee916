"""The interface of sentence-transformers' SparseEncoder, over the wire."""

from collections.abc import Iterator

import numpy as np
import pytest

from pairwire.client import Client, InvalidInput, SparseEncoder, TokenIds
from tests.client.fake_server import FakeServer, weights_of


@pytest.fixture
def model(server: FakeServer) -> Iterator[SparseEncoder]:
    with Client(server.address) as client:
        yield client.sparse_encoder("fake")


def weights(model: SparseEncoder, method: str, text: str, **named: object) -> dict[int, float]:
    ((indices, values),) = getattr(model, method)(text, **named).rows()
    return dict(zip(indices.tolist(), values.tolist(), strict=True))


def test_a_list_or_one_text_gives_rows(model: SparseEncoder, server: FakeServer) -> None:
    found = model.encode(["ab", "c"], batch_size=3, show_progress_bar=False, device="cpu")
    assert found.counts.tolist() == [2, 1]
    assert np.array_equal(model.encode("ab").to_dense()[0], found.to_dense()[0])
    assert weights(model, "encode", "ab") == weights_of("ab")
    assert model.encode(TokenIds([ord("a")])).counts.tolist() == [1]
    assert model.encode("abc", max_active_dims=2).counts.tolist() == [2]
    assert {request.model for request in server.script.requests} == {"fake"}  # type: ignore[attr-defined]


def test_prompts_are_those_for_queries_and_for_documents(model: SparseEncoder, server: FakeServer) -> None:
    server.script.prompts = {"query": "q: ", "corpus": "c: ", "passage": "p: "}
    assert weights(model, "encode_query", "x") == dict.fromkeys(weights_of("q: x"), 1.0)
    assert weights(model, "encode_document", "x") == weights_of("p: x")
    assert weights(model, "encode_query", "x", prompt_name="corpus") == dict.fromkeys(weights_of("c: x"), 1.0)
    assert weights(model, "encode_document", "x", prompt="y") == weights_of("yx")
    assert weights(model, "encode", "x", prompt="y", prompt_name="query") == weights_of("yx")


def test_without_prompts_queries_and_documents_are_plain_texts(model: SparseEncoder) -> None:
    assert weights(model, "encode_document", "x") == weights_of("x")
    assert list(weights(model, "encode_query", "x")) == list(weights_of("x"))


@pytest.mark.parametrize(
    ("texts", "named", "message"),
    [
        ("a", {"convert_to_tensor": True}, "convert_to_tensor: this client does without torch"),
        ("a", {"max_active_dims": 0}, "max_active_dims: 0 is not between 1 and"),
        ([], {}, "inputs: at least one is needed"),
    ],
)
def test_what_cannot_be_done_is_refused(
    texts: list[str] | str, named: dict[str, object], message: str, model: SparseEncoder
) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.encode(texts, **named)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        model.encode("a", batch_size=0)


def test_a_query_is_told_from_a_document(model: SparseEncoder, server: FakeServer) -> None:
    looked_up = dict.fromkeys(weights_of("abc"), 1.0)
    assert weights(model, "encode_query", "abc") == looked_up
    assert weights(model, "encode_document", "abc") == weights_of("abc") == weights(model, "encode", "abc")
    assert weights(model, "encode", "abc", task="query") == looked_up
    asked = [request.input_type for request in server.script.requests if hasattr(request, "input_type")]
    assert asked == [1, 2, 0, 1]
    with pytest.raises(InvalidInput, match="input_type: 'passage' is unknown; one of query, document"):
        model.encode("abc", task="passage")  # type: ignore[arg-type]
