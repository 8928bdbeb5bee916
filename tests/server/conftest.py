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
def embedder_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder with a prompt, named ``embedder``."""
    return toy_packages.write_bi_encoder(tmp_path_factory.mktemp("packages") / "embedder", prompts={"query": "query: "})


@pytest.fixture(scope="session")
def slow_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder named ``slow``: some ten milliseconds a batch, so that requests overlap and queue."""
    return toy_packages.write_cross_encoder(tmp_path_factory.mktemp("packages") / "slow", name="slow", work=1500)


@pytest.fixture
async def scorer(scorer_package: Path) -> AsyncIterator[serving.Served]:
    """A server of the scorer alone."""
    async with serving.serve(scorer_package) as served:
        yield served


@pytest.fixture(scope="session")
def packed_toy(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> packed_toys.PackedToy:
    """A cross-encoder as packed runtimes run it."""
    return packed_toys.save(cross_encoder_checkpoint, tmp_path_factory.mktemp("packed"))
