"""`pairwire rerank --first-stage`: on a server, and in this process with two packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pairwire.v1 import scoring_pb2
from tests.cli.conftest import Run
from tests.client.fake_server import FakeServer
from tests.server import toy_packages

DOCUMENTS = ["the dog runs", "bread", "mix flour and water", "bake bread"]


def test_the_server_is_told_which_model_and_how_many(remote: Run, server: FakeServer) -> None:
    done = remote("rerank", "q", *DOCUMENTS, "--first-stage", "mini", "--keep", "2", "--json")
    assert done.code == 0
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.RerankRequest)
    assert request.first_stage == scoring_pb2.FirstStage(model="mini", keep=2)
    results = json.loads(done.out)["results"]
    assert {found["index"]: found["first_stage_score"] for found in results} == {1: -5.0, 3: -10.0}
    assert list(results[0]) == ["index", "score", "first_stage_score", "document"]


def test_a_hundred_are_kept_unless_another_number_is_given(remote: Run, server: FakeServer) -> None:
    done = remote("rerank", "q", *DOCUMENTS, "--first-stage", "mini")
    assert len(done.lines) == 4
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.RerankRequest)
    assert request.first_stage.keep == 100


def test_a_number_to_keep_needs_a_first_stage(remote: Run, server: FakeServer) -> None:
    done = remote("rerank", "q", *DOCUMENTS, "--keep", "2")
    assert done.code == 2
    assert "give --first-stage too, or --top-k instead" in done.err
    assert server.script.requests == []


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    home = tmp_path_factory.mktemp("local")
    scorer = toy_packages.write_cross_encoder(home / "scorer")
    return str(scorer), str(toy_packages.write_bi_encoder(home / "embedder"))


def test_two_packages_work_together_without_a_server(run: Run, packages: tuple[str, str]) -> None:
    scorer, embedder = packages
    arguments = ("rerank", "--local", scorer, "bake bread", *DOCUMENTS, "--json")
    staged = run(*arguments, "--first-stage", embedder, "--keep", "1")
    assert staged.code == 0, staged.err
    (found,) = json.loads(staged.out)["results"]
    assert (found["index"], found["document"]) == (3, "bake bread")  # the same text is the nearest
    assert found["first_stage_score"] == pytest.approx(1, abs=1e-6)
    plain = {entry["index"]: entry["score"] for entry in json.loads(run(*arguments).out)["results"]}
    assert found["score"] == pytest.approx(plain[3], abs=1e-5)
    everything = json.loads(run(*arguments, "--first-stage", embedder).out)["results"]
    assert [entry["index"] for entry in everything] == list(plain)


def test_a_package_that_is_no_bi_encoder_is_told(run: Run, packages: tuple[str, str], tmp_path: Path) -> None:
    other = str(toy_packages.write_cross_encoder(tmp_path / "other", name="other"))
    done = run("rerank", "--local", packages[0], "--model", "scorer", "q", "d", "--first-stage", other)
    assert done.code == 2
    assert "first_stage.model: empty, and no model of kind bi-encoder is loaded" in done.err
