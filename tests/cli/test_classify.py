"""`pairwire classify`: against a server, and in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pairwire.v1 import scoring_pb2
from tests.cli.conftest import Run
from tests.client.fake_server import FakeServer, score_of
from tests.server import toy_packages

LABELS = ("-l", "bread", "-l", "a dog")


def test_a_line_a_text_with_the_best_label_first(remote: Run) -> None:
    done = remote("classify", *LABELS, "the fox", "bake bread")
    assert done.code == 0, done.err
    for line, text in zip(done.lines, ("the fox", "bake bread"), strict=True):
        expected = sorted((("bread", score_of(text, "bread")), ("a dog", score_of(text, "a dog"))), key=lambda x: -x[1])
        assert line.split("\t") == [part for label, score in expected for part in (label, f"{score:.6f}")]


def test_options_reach_the_server(remote: Run, server: FakeServer) -> None:
    done = remote(
        "classify", "the fox", *LABELS, "--multi-label", "--template", "about {}", "--model", "nli", "--json",
        "--max-length", "9", "--truncation", "error", "--truncation-direction", "left", "--priority", "low",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert server.script.requests == [
        scoring_pb2.ClassifyRequest(
            model="nli",
            texts=["the fox"],
            candidate_labels=["bread", "a dog"],
            hypothesis_template="about {}",
            multi_label=True,
            max_length=9,
            truncation=scoring_pb2.TRUNCATION_ERROR,
            truncation_direction=scoring_pb2.TRUNCATION_DIRECTION_LEFT,
            priority=scoring_pb2.PRIORITY_LOW,
        )
    ]
    found = json.loads(done.out)
    assert sorted(found["labels"]) == ["a dog", "bread"]
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert found["truncated"] is True


def test_labels_are_needed(remote: Run, server: FakeServer) -> None:
    done = remote("classify", "the fox")
    assert done.code == 2
    assert "no labels: give at least one, e.g. -l urgent" in done.err
    assert server.script.requests == []


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    labels = ("contradiction", "entailment", "neutral")
    return str(toy_packages.write_cross_encoder(tmp_path_factory.mktemp("local") / "nli", labels=labels))


def test_it_works_without_a_server_and_an_error_names_the_line(run: Run, package: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("".join(f"fox {number}\n" for number in range(300)))
    done = run("classify", "--local", package, *LABELS, "--json", "-i", str(texts))
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.lines]
    assert [each["index"] for each in found] == list(range(300))
    assert all(sum(each["scores"]) == pytest.approx(1, abs=1e-4) for each in found)
    texts.write_text("fox\n" * 200 + "the fox runs " * 40)
    done = run("classify", "--local", package, *LABELS, "-i", str(texts), "--truncation", "error")
    assert done.code == 2
    assert "read with" in done.err


def test_a_template_without_a_place_is_a_sentence(run: Run, package: str) -> None:
    done = run("classify", "--local", package, *LABELS, "the fox", "--template", "nothing")
    assert done.code == 2
    assert "hypothesis_template: 'nothing' has no place for the label" in done.err
