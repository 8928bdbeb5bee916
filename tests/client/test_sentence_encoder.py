"""The interface of sentence-transformers' SentenceTransformer, over the wire."""

from collections.abc import Iterator

import numpy as np
import pytest

from pairwire.client import Client, InvalidInput, SentenceEncoder, TokenIds
from tests.client.fake_server import DIMENSIONS, FakeServer, vector_of


@pytest.fixture
def model(server: FakeServer) -> Iterator[SentenceEncoder]:
    with Client(server.address) as client:
        yield client.sentence_encoder("fake")


def test_a_list_gives_a_matrix_and_a_text_gives_a_vector(model: SentenceEncoder) -> None:
    assert np.array_equal(model.encode(["a", "bc"]), np.stack([vector_of("a"), vector_of("bc")]))
    assert np.array_equal(model.encode(np.array(["a", "bc"])), model.encode(["a", "bc"]))  # type: ignore[arg-type]
    single = model.encode("a", batch_size=3, show_progress_bar=True, device="cuda")
    assert single.shape == (DIMENSIONS,)
    assert single.dtype == np.float32
    assert model.encode([]).shape == (0,)


def test_vectors_are_cut_and_then_made_unit(model: SentenceEncoder) -> None:
    vectors = model.encode(["a", "bc"], truncate_dim=2, normalize_embeddings=True)
    assert vectors.dtype == np.float32
    assert vectors.shape == (2, 2)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    cut = vector_of("a")[:2]
    assert vectors[0] == pytest.approx(cut / np.linalg.norm(cut))


def test_prompts_are_named_or_given(model: SentenceEncoder, server: FakeServer) -> None:
    server.script.prompts = {"query": "find: ", "passage": "text: "}
    expected = vector_of("find: a")
    assert np.array_equal(model.encode("a", prompt_name="query"), expected)
    assert np.array_equal(model.encode("a", prompt="find: "), expected)
    assert np.array_equal(model.encode_query("a"), expected)
    assert np.array_equal(model.encode_document("a"), vector_of("text: a"))
    assert np.array_equal(model.encode("a", prompt="seek: ", prompt_name="query"), vector_of("seek: a"))
    assert np.array_equal(model.encode_query("a", prompt="seek: "), vector_of("seek: a"))
    assert np.array_equal(model.encode_query("a", prompt_name="passage"), vector_of("text: a"))
    assert np.array_equal(model.encode_document(["a"], prompt_name="query", truncate_dim=2), expected[None, :2])


def test_a_prompt_that_is_given_makes_the_names_unneeded(model: SentenceEncoder, server: FakeServer) -> None:
    model.encode_query("a", prompt="find: ")
    model.encode_document("a", prompt_name="passage")
    assert len(server.script.requests) == 2
    model.encode_query("a")
    model.encode_document("a")
    assert len(server.script.requests) == 5  # the names are asked for once


def test_every_precision_is_quantised_by_the_server(model: SentenceEncoder, server: FakeServer) -> None:
    vectors = np.stack([vector_of("a"), vector_of("bc")])
    int8 = np.clip(vectors - 100, -128, 127).astype(np.int8)
    bits = np.packbits(vectors > 0.5, axis=1)
    for precision, dtype, expected in (
        ("float32", np.float32, vectors),
        (None, np.float32, vectors),
        ("int8", np.int8, int8),
        ("uint8", np.uint8, int8.astype(np.int16) + 128),
        ("ubinary", np.uint8, bits),
        ("binary", np.int8, bits.astype(np.int16) - 128),
    ):
        found = model.encode(["a", "bc"], precision=precision)
        assert found.dtype == dtype
        assert found.tolist() == expected.tolist()
        assert model.encode_document("bc", precision=precision).tolist() == expected[1].tolist()
    assert [request.encoding for request in server.script.requests if hasattr(request, "encoding")][::2] == [
        *(1, 1, 3, 3, 4, 4)
    ]


def test_tokenised_texts_are_texts(model: SentenceEncoder) -> None:
    assert np.array_equal(model.encode(TokenIds([97])), vector_of("a"))
    assert np.array_equal(model.encode([TokenIds([97])]), vector_of("a")[None])


def test_without_prompts_queries_and_documents_are_plain_texts(model: SentenceEncoder) -> None:
    assert np.array_equal(model.encode_query(["a"]), model.encode(["a"]))
    assert np.array_equal(model.encode_document(["a"]), model.encode(["a"]))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"precision": "int4"}, "precision: .int4. is unknown; one of float32, int8, uint8, binary, ubinary"),
        ({"output_value": "token_embeddings"}, "output_value: 'token_embeddings' does not travel"),
        ({"convert_to_tensor": True}, "convert_to_tensor: this client does without torch"),
        ({"truncate_dim": 0}, "truncate_dim: 0 is not between 1 and"),
    ],
)
def test_what_would_change_the_result_is_refused(model: SentenceEncoder, named: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.encode("a", **named)


def test_a_batch_size_that_is_none_is_refused_as_at_home(model: SentenceEncoder) -> None:
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        model.encode("a", batch_size=-1)
