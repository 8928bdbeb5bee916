"""The look-alikes take what sentence-transformers takes: the same arguments, in the same order, by the same names."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from pairwire import client
from pairwire.client import Client, InvalidInput
from tests.client.fake_server import FakeServer

METHODS = [
    ("CrossEncoder", "CrossEncoder", "predict"),
    ("CrossEncoder", "CrossEncoder", "rank"),
    *[("SentenceEncoder", "SentenceTransformer", name) for name in ("encode", "encode_query", "encode_document")],
    *[("SparseEncoder", "SparseEncoder", name) for name in ("encode", "encode_query", "encode_document")],
]
WITHOUT_TORCH = {("SparseEncoder", "convert_to_tensor")}
"""By default the library makes tensors, and this client cannot."""


@pytest.mark.parametrize(("ours", "theirs", "method"), METHODS)
def test_arguments_are_those_of_sentence_transformers(ours: str, theirs: str, method: str) -> None:
    import sentence_transformers

    expected = _positional(getattr(getattr(sentence_transformers, theirs), method))
    found = _positional(getattr(getattr(client, ours), method))
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, default), (_, theirs_default) in zip(found, expected, strict=True):
        assert default == theirs_default or (ours, name) in WITHOUT_TORCH, name


def _positional(method: Any) -> list[tuple[str, object]]:
    """Names and defaults of the arguments that may be given in their order."""
    every = inspect.signature(method).parameters.values()
    return [(each.name, each.default) for each in every if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def test_arguments_by_position_and_by_earlier_names_mean_the_same(server: FakeServer) -> None:
    pairs = [("a", "bb"), ("ccc", "dddd")]
    with Client(server.address) as connected:
        scorer: Any = connected.cross_encoder()
        expected = scorer.predict(pairs)
        for found in (
            scorer.predict(inputs=pairs),
            scorer.predict(sentences=pairs),
            scorer.predict(pairs, None, None, 16, False, None),
            scorer.predict(pairs, activation_fct=None, num_workers=2),
            scorer.predict(pairs, pool=None, chunk_size=8),
        ):
            assert found == pytest.approx(expected)
        ranked = scorer.rank("q", ["a", "bb"], 1, True, None, None, 16)
        assert ranked == scorer.rank("q", ["a", "bb"], top_k=1, return_documents=True)
        assert len(ranked) == 1
        assert "text" in ranked[0]
        embedder: Any = connected.sentence_encoder()
        vectors = embedder.encode(["a", "bb"])
        assert embedder.encode(inputs=["a", "bb"]) == pytest.approx(vectors)
        assert embedder.encode(sentences=["a", "bb"]) == pytest.approx(vectors)
        assert embedder.encode(["a", "bb"], None, "", 16, False) == pytest.approx(vectors)
        assert embedder.encode_query(sentences="a").shape == embedder.encode_document(inputs="a").shape
        assert embedder.encode("a").shape == embedder.encode_query("a").shape
        sparse: Any = connected.sparse_encoder()
        assert len(sparse.encode(inputs=["a", "bb"])) == len(sparse.encode(sentences=["a", "bb"])) == 2
        assert len(sparse.encode(["a"], None, "", 16, False, False, True, False, None, 3)) == 1


def test_a_prompt_by_position_reaches_the_server(server: FakeServer) -> None:
    with Client(server.address) as connected:
        connected.cross_encoder().predict([("a", "b")], None, "search: ")
        assert server.script.requests[-1].prompt == "search: "
        connected.sentence_encoder().encode(["a"], "query")
        assert server.script.requests[-1].prompt_name == "query"


def test_an_activation_by_its_earlier_name_is_not_forgotten(server: FakeServer) -> None:
    class Tanh:
        """As torch's."""

    scorer: Any
    with Client(server.address) as connected:
        scorer = connected.cross_encoder()
        for call in (
            lambda **named: scorer.predict([("a", "b")], **named),
            lambda **named: scorer.rank("q", ["a"], **named),
        ):
            with pytest.raises(InvalidInput, match=r"^activation_fn: "):
                call(activation_fct=Tanh())


def test_what_only_torch_can_do_is_refused_by_position_too(server: FakeServer) -> None:
    with Client(server.address) as connected, pytest.raises(InvalidInput, match=r"^convert_to_tensor: "):
        connected.cross_encoder().predict([("a", "b")], None, None, 32, None, None, False, True, True)
