"""Zero-shot classification over HTTP: the numbers of pairwire.v1, in the shapes that Hugging Face's clients read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server.compat.http.running import Running, running

TEXTS = ["the dog runs", "bake the bread"]
LABELS = ["bread", "a dog", "the weather"]


@pytest.fixture(scope="module")
def served(nli_package: Path, scorer_package: Path, embedder_package: Path) -> Iterator[Running]:
    with running(nli_package, scorer_package, embedder_package) as found:
        yield found


@pytest.fixture
def http(served: Running) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def asked(inputs: Any = "the dog runs", **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": {"candidate_labels": LABELS, **parameters}}


def expected(served: Running, text: str, **fields: Any) -> list[tuple[str, float]]:
    request = scoring_pb2.ClassifyRequest(texts=[text], **{"candidate_labels": LABELS, **fields})
    with served.channel() as channel:
        (found,) = ScoringServiceStub(channel).Classify(request).results
    return [(each.label, each.score) for each in found.labels]


def float32(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    import numpy as np

    return [(row["label"], float(np.float32(row["score"]))) for row in rows]


@pytest.mark.parametrize("path", ["/", "/zero-shot", "/invocations"])
@pytest.mark.parametrize("multi_label", [None, False, True, "true"])
def test_numbers_are_those_of_grpc(served: Running, http: httpx.Client, path: str, multi_label: Any) -> None:
    answer = http.post(path, json=asked(multi_label=multi_label, hypothesis_template="about {}"))
    assert answer.status_code == 200, answer.text
    flag = multi_label in (True, "true")
    assert float32(answer.json()) == expected(served, TEXTS[0], multi_label=flag, hypothesis_template="about {}")
    assert int(answer.headers["x-compute-tokens"]) > 0
    assert answer.headers["server-timing"].startswith("queue;dur=")


def test_several_texts_and_labels_in_one_string(served: Running, http: httpx.Client) -> None:
    answer = http.post("/zero-shot", json=asked(TEXTS, candidate_labels=", ".join(LABELS))).json()
    assert [float32(each) for each in answer] == [expected(served, text) for text in TEXTS]
    assert http.post("/zero-shot", json={**asked(), "model": "nli"}).status_code == 200
    assert http.post("/", json=asked(multi_class=True)).json() == http.post("/", json=asked(multi_label=True)).json()


def test_text_that_is_too_long_is_cut_unless_that_is_forbidden(http: httpx.Client) -> None:
    long = asked("the dog runs " * 40)
    assert http.post("/", json=long).status_code == 200
    left = http.post("/", json={**long, "truncation_direction": "left"})
    assert left.json() != http.post("/", json={**long, "truncation_direction": "right"}).json()
    refused = http.post("/", json={**long, "truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {}}, {"parameters": [1]}])
def test_other_requests_at_the_root_are_still_theirs(http: httpx.Client, parameters: dict[str, Any]) -> None:
    vectors = http.post("/", json={"inputs": TEXTS, **parameters}).json()
    assert len(vectors) == 2
    assert len(vectors[0]) == 8


@pytest.mark.usefixtures("hub_client")
def test_hugging_faces_client_works_unchanged(served: Running) -> None:
    client = InferenceClient(model=served.url)
    for multi_label in (False, True):
        found = client.zero_shot_classification(TEXTS[1], LABELS, multi_label=multi_label)
        assert [each.label for each in found] == [
            label for label, _ in expected(served, TEXTS[1], multi_label=multi_label)
        ]
    templated = client.zero_shot_classification(TEXTS[1], LABELS, hypothesis_template="about {}")
    assert [each.score for each in templated] == pytest.approx(
        [score for _, score in expected(served, TEXTS[1], hypothesis_template="about {}")]
    )
    with pytest.raises(HfHubHTTPError, match="422"):
        client.zero_shot_classification(TEXTS[1], LABELS, hypothesis_template="no place")


@pytest.mark.parametrize(
    ("agent", "two_lists"),
    [
        ("unknown/None; hf_hub/0.36.2; python/3.11.7", True),
        ("unknown/None; hf_hub/1.1.7; python/3.11.7", True),
        ("unknown/None; hf_hub/1.2.0; python/3.11.7", False),
        ("unknown/None; hf_hub/1.10.0; python/3.11.7", False),
        ("unknown/None; hf_hub/2.4.0; python/3.11.7", False),
        ("curl/8.9", False),
        ("", False),
    ],
)
def test_each_client_gets_the_shape_that_it_reads(http: httpx.Client, agent: str, two_lists: bool) -> None:
    answer = http.post("/", json=asked(), headers={"user-agent": agent}).json()
    if two_lists:
        assert list(answer) == ["sequence", "labels", "scores"]
        assert answer["sequence"] == TEXTS[0]
    else:
        assert sorted(answer[0]) == ["label", "score"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/", asked(candidate_labels=[]), 422, "parameters.candidate_labels: empty"),
        ("/", asked(candidate_labels=" , "), 422, "parameters.candidate_labels: empty"),
        ("/", asked(candidate_labels=["a", 3]), 422, "parameters.candidate_labels[1]: expected a string"),
        ("/", asked(candidate_labels=["a", " "]), 422, "parameters.candidate_labels[1]: empty"),
        ("/", asked(hypothesis_template="none"), 422, "parameters.hypothesis_template: 'none' has no place"),
        ("/", asked(hypothesis_template="{0.real}"), 422, "is no place for the label"),
        ("/", asked(multi_label="perhaps"), 422, "parameters.multi_label: expected"),
        ("/", asked({"text": "a"}), 422, "inputs: expected"),
        ("/", asked(""), 400, "inputs: empty"),
        ("/", asked([]), 400, "inputs: empty"),
        ("/", asked(["a"] * 900), 422, "inputs: 900 with 3 candidate labels make 2700 pairs"),
        ("/zero-shot", {"inputs": "a"}, 422, "parameters: missing"),
        ("/zero-shot", {"inputs": "a", "parameters": {}}, 422, "parameters.candidate_labels: missing"),
        ("/zero-shot", {**asked(), "model": "scorer"}, 424, "has no label that is called entailment"),
        ("/zero-shot", {**asked(), "model": "nobody"}, 404, "no model 'nobody' is loaded"),
    ],
)
def test_what_is_wrong_is_said_as_the_caller_knows_it(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = http.post(path, json=body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
