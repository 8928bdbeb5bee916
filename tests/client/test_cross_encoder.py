"""The interface of sentence-transformers' CrossEncoder, over the wire."""

from collections.abc import Iterator

import numpy as np
import pytest

from pairwire.client import Client, CrossEncoder, InvalidInput
from pairwire.v1 import scoring_pb2
from tests.client.fake_server import FakeServer, ranking, score_of


class Identity:
    """Stands for torch.nn.Identity, which is known by its name."""


class Sigmoid:
    """Stands for torch.nn.Sigmoid."""


class ReLU:
    """Stands for a function that the server does not have."""


@pytest.fixture
def model(server: FakeServer) -> Iterator[CrossEncoder]:
    with Client(server.address) as client:
        yield client.cross_encoder("fake")


def test_a_list_of_pairs_gives_a_vector(model: CrossEncoder, server: FakeServer) -> None:
    scores = model.predict([["a", "b"], ["c", "d"]], batch_size=7, show_progress_bar=False, device="cpu")
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (2,)
    assert scores.dtype == np.float32
    assert scores.tolist() == [score_of("a", "b"), score_of("c", "d")]
    assert server.script.requests[0].model == "fake"


@pytest.mark.parametrize("pair", [["a", "b"], ("a", "b"), np.array(["a", "b"])])
def test_one_pair_gives_one_number(model: CrossEncoder, pair: list[str]) -> None:
    score = model.predict(pair)
    assert isinstance(score, np.float32)
    assert score == score_of("a", "b")


@pytest.mark.parametrize(
    "pairs", [[("a", "b")], (("a", "b"),), np.array([["a", "b"]]), iter([("a", "b")]), [np.array(["a", "b"])]]
)
def test_every_kind_of_list_is_a_list(model: CrossEncoder, pairs: list) -> None:
    assert np.shape(model.predict(pairs)) == (1,)


def test_several_labels_give_rows(model: CrossEncoder, server: FakeServer) -> None:
    server.script.labels = ("no", "yes", "maybe")
    assert np.shape(model.predict([("a", "b")] * 4)) == (4, 3)
    assert np.shape(model.predict(("a", "b"))) == (3,)


def test_softmax_comes_after_the_activation(model: CrossEncoder, server: FakeServer) -> None:
    server.script.labels = ("no", "yes")
    plain = np.asarray(model.predict([("a", "b")]))
    softened = np.asarray(model.predict([("a", "b")], apply_softmax=True))
    assert softened.dtype == np.float32
    assert softened == pytest.approx(np.exp(plain) / np.exp(plain).sum(axis=1, keepdims=True))
    server.script.labels = ("relevant",)
    assert np.asarray(model.predict([("a", "b")], apply_softmax=True)).tolist() == [1.0]


def test_nothing_gives_an_empty_vector_without_asking(model: CrossEncoder, server: FakeServer) -> None:
    assert np.shape(model.predict([])) == (0,)
    assert model.rank("q", []) == []
    assert server.script.requests == []


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        (None, scoring_pb2.ACTIVATION_UNSPECIFIED),
        (Identity(), scoring_pb2.ACTIVATION_IDENTITY),
        (Sigmoid(), scoring_pb2.ACTIVATION_SIGMOID),
    ],
)
def test_known_activations_travel(model: CrossEncoder, server: FakeServer, function: object, activation: int) -> None:
    model.predict(("a", "b"), activation_fn=function)
    model.rank("a", ["b"], activation_fn=function)
    assert [request.activation for request in server.script.requests] == [activation] * 2


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"activation_fn": ReLU()},
            r"activation_fn: .*ReLU.* cannot travel to the server; use None, torch\.nn\.Identity",
        ),
        ({"convert_to_tensor": True}, r"convert_to_tensor: this client does without torch; use torch\.from_numpy"),
        ({"convert_to_numpy": False}, "convert_to_numpy: this client does without torch"),
    ],
)
def test_what_would_change_the_result_is_refused(model: CrossEncoder, named: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.predict(("a", "b"), **named)
    with pytest.raises(InvalidInput, match=message):
        model.rank("a", ["b"], **named)


def test_a_batch_size_that_is_none_is_refused_as_at_home(model: CrossEncoder) -> None:
    for call in (lambda: model.predict(("a", "b"), batch_size=0), lambda: model.rank("a", ["b"], batch_size=0)):
        with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
            call()


def test_rank_gives_sorted_dictionaries(model: CrossEncoder) -> None:
    documents = [f"document {index}" for index in range(6)]
    scores = [score_of("q", document) for document in documents]
    found = model.rank("q", documents, top_k=3, return_documents=True)
    assert found == [
        {"corpus_id": index, "score": scores[index], "text": documents[index]} for index in ranking(scores)[:3]
    ]
    assert all(isinstance(entry["score"], np.float32) for entry in found)
    assert [set(entry) for entry in model.rank("q", documents)] == [{"corpus_id", "score"}] * 6


def test_rank_refuses_a_softmax_over_one_label(model: CrossEncoder) -> None:
    with pytest.raises(InvalidInput, match="every score 1"):
        model.rank("q", ["a"], apply_softmax=True)


def test_prompts_travel_and_the_text_wins_over_the_name(model: CrossEncoder, server: FakeServer) -> None:
    model.predict([("a", "b")], prompt_name="query")
    model.rank("q", ["d"], prompt_name="query")
    model.predict(("a", "b"), prompt="find: ", prompt_name="query")
    model.rank("q", ["d"], prompt="", prompt_name="query")
    sent = [(request.prompt_name, request.HasField("prompt"), request.prompt) for request in server.script.requests]  # type: ignore[attr-defined]
    assert sent == [("query", False, "")] * 2 + [("", True, "find: "), ("", True, "")]
