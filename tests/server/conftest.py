"""Fixtures of the server's tests: whole packages, and a server in this process on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server import packed_toys, serving, toy_packages


@pytest.fixture(scope="session")
def scorer_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with one label, named ``scorer``."""
    return toy_packages.write_cross_encoder(tmp_path_factory.mktemp("packages") / "scorer")


@pytest.fixture(scope="session")
def classifier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder with three labels, named ``classifier``."""
    directory = tmp_path_factory.mktemp("packages") / "classifier"
    return toy_packages.write_cross_encoder(directory, name="classifier", labels=("no", "maybe", "yes"))


@pytest.fixture(scope="session")
def nli_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder that knows entailment, named ``nli``."""
    directory = tmp_path_factory.mktemp("packages") / "nli"
    return toy_packages.write_cross_encoder(directory, name="nli", labels=("contradiction", "entailment", "neutral"))


@pytest.fixture(scope="session")
def embedder_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder of 8 dimensions, with a prompt and ranges for int8, named ``embedder``."""
    directory = tmp_path_factory.mktemp("packages") / "embedder"
    return toy_packages.write_bi_encoder(directory, prompts={"query": "query: "}, int8_range=20)


@pytest.fixture(scope="session")
def cut_embedder_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder that gives 4 of its 8 dimensions unless it is asked for others, without ranges, named ``cut``."""
    directory = tmp_path_factory.mktemp("packages") / "cut"
    return toy_packages.write_bi_encoder(directory, name="cut", default_dimensions=4)


@pytest.fixture(scope="session")
def sparse_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse encoder with a prompt, named ``splade``."""
    directory = tmp_path_factory.mktemp("packages") / "splade"
    return toy_packages.write_sparse_encoder(directory, prompts={"query": "query: "})


@pytest.fixture(scope="session")
def slow_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder named ``slow``: some ten milliseconds a batch, so that requests overlap and queue."""
    return toy_packages.write_cross_encoder(tmp_path_factory.mktemp("packages") / "slow", name="slow", work=1500)


@pytest.fixture(scope="session")
def faulty_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder named ``faulty``: one token hangs its runs, another makes them raise, ...: `Fault`."""
    directory = tmp_path_factory.mktemp("packages") / "faulty"
    return toy_packages.write_cross_encoder(directory, name="faulty", faults={})


@pytest.fixture
async def scorer(scorer_package: Path) -> AsyncIterator[serving.Served]:
    """A server of the scorer alone."""
    async with serving.serve(scorer_package) as served:
        yield served


@pytest.fixture(scope="session")
def packed_toy(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> packed_toys.PackedToy:
    """A cross-encoder as packed runtimes run it."""
    return packed_toys.save(cross_encoder_checkpoint, tmp_path_factory.mktemp("packed"))
