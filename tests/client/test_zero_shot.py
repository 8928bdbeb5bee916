"""Zero-shot classification: what travels, how a large input is split, and what the caller gets."""

from __future__ import annotations

import numpy as np
import pytest

from pairwire.client import Classification, ClassifyResult, InvalidInput, ServerFault
from pairwire.v1 import scoring_pb2
from tests.client.conftest import EitherClient
from tests.client.fake_server import FakeServer, score_of

TEXTS = ["one", "two", "three", "four", "five"]
LABELS = ["numbers", "animals"]


async def test_scores_come_in_the_order_given_and_each_text_best_first(
    client: EitherClient, server: FakeServer
) -> None:
    found = await client.call("classify", TEXTS, LABELS)
    assert isinstance(found, ClassifyResult)
    expected = np.array([[score_of(text, label) for label in LABELS] for text in TEXTS])
    np.testing.assert_array_equal(found.scores, expected)
    assert found.labels == ("numbers", "animals")
    best = [LABELS[at] for at in expected.argmax(axis=1)]
    assert found.best_labels() == [each.best for each in found] == best
    first = found[0]
    assert isinstance(first, Classification)
    assert first.scores == tuple(sorted(expected[0], reverse=True))
    assert found[1:3] == tuple(found)[1:3]
    assert len(found) == 5
    # A part has at most 4 pairs, and a text makes two.
    assert sorted(len(request.texts) for request in server.script.requests) == [1, 2, 2]
    assert found.usage.truncated_inputs == (0, 2, 4)


async def test_equal_scores_keep_the_order_of_the_labels(client: EitherClient) -> None:
    (found,) = await client.call("classify", ["a"], ["b tie", "c tie", "d tie"])
    assert found.labels == ("b tie", "c tie", "d tie")


async def test_more_labels_than_a_part_has_pairs_are_one_text_a_request(
    client: EitherClient, server: FakeServer
) -> None:
    labels = [f"label {number}" for number in range(9)]
    found = await client.call("classify", TEXTS[:2], labels)
    assert found.scores.shape == (2, 9)
    assert [len(request.texts) for request in server.script.requests] == [1, 1]


async def test_options_travel_and_what_is_not_set_does_not(client: EitherClient, server: FakeServer) -> None:
    await client.call("classify", TEXTS[:1], LABELS)
    await client.call(
        "classify",
        TEXTS[:1],
        LABELS,
        model="nli",
        hypothesis_template="about {}",
        multi_label=True,
        truncation="error",
        truncation_direction="left",
        max_length=64,
        priority="low",
    )
    assert server.script.requests == [
        scoring_pb2.ClassifyRequest(texts=["one"], candidate_labels=LABELS),
        scoring_pb2.ClassifyRequest(
            model="nli",
            texts=["one"],
            candidate_labels=LABELS,
            hypothesis_template="about {}",
            multi_label=True,
            truncation=scoring_pb2.TRUNCATION_ERROR,
            truncation_direction=scoring_pb2.TRUNCATION_DIRECTION_LEFT,
            max_length=64,
            priority=scoring_pb2.PRIORITY_LOW,
        ),
    ]


async def test_a_stream_gives_a_result_a_request(client: EitherClient) -> None:
    found = await client.collect("classify_stream", iter(TEXTS), LABELS, multi_label=True)
    assert [len(each) for each in found] == [2, 2, 1]


@pytest.mark.parametrize(
    ("texts", "labels", "named", "words"),
    [
        ([], LABELS, {}, r"^texts: at least one"),
        (TEXTS, [], {}, r"^candidate_labels: at least one"),
        ("one text", LABELS, {}, r"^texts: "),
        (TEXTS, "a, b", {}, r"^candidate_labels: "),
        (TEXTS, ["a", None], {}, r"^candidate_labels\[1\]: expected text"),
        (["a", 3], LABELS, {}, r"^texts\[1\]: expected text"),
        (TEXTS, LABELS, {"multi_label": "yes"}, r"^multi_label: expected True or False"),
        (TEXTS, LABELS, {"hypothesis_template": 3}, r"^hypothesis_template: expected text"),
        (TEXTS, LABELS, {"truncation": "both"}, r"^truncation: 'both' is unknown"),
    ],
)
async def test_wrong_input_is_named_and_nothing_is_sent(
    client: EitherClient, server: FakeServer, texts: list[str], labels: list[str], named: dict, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await client.call("classify", texts, labels, **named)
    assert server.script.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        scoring_pb2.ClassifyResponse(),
        scoring_pb2.ClassifyResponse(results=[{"labels": [{"index": 0, "score": 0.5}]}]),
        scoring_pb2.ClassifyResponse(results=[{"labels": [{"index": 0}, {"index": 7}]}]),
    ],
    ids=["nothing", "one label of two", "a label that was not sent"],
)
async def test_an_answer_that_does_not_fit_is_the_servers_fault(
    client: EitherClient, server: FakeServer, answer: scoring_pb2.ClassifyResponse
) -> None:
    server.script.answer = answer
    with pytest.raises(ServerFault, match="for 1 texts, or left out"):
        await client.call("classify", TEXTS[:1], LABELS)
