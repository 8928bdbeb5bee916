"""A `pairwire serve` of two models for all integrations, and the client whose answers are the right ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.serving import serving
from pairwire.client import Client
from tests.server import toy_packages

QUERY = "how do I bake bread"
TEXTS = ["mix flour and water", "the dog runs", "bake the bread", "the dog runs"]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``scorer``, and ``embedder``, which has prompts for queries and for documents."""
    home = tmp_path_factory.mktemp("packages")
    packages = (
        toy_packages.write_cross_encoder(home / "scorer"),
        toy_packages.write_bi_encoder(home / "embedder", prompts={"query": "query: ", "passage": "passage: "}),
    )
    with serving(packages) as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """Pairwire's own client."""
    with Client(address) as found:
        yield found


@pytest.fixture
def ranking(client: Client) -> list[tuple[int, float]]:
    """Indices and scores of ``TEXTS`` for ``QUERY``, best first."""
    return [(found.index, found.score) for found in client.rerank(QUERY, TEXTS)]


@pytest.fixture
def query_vector(client: Client) -> list[float]:
    """Of ``QUERY``, with the prompt for queries."""
    vector: list[float] = client.embed([QUERY], prompt_name="query").embeddings[0].tolist()
    return vector


@pytest.fixture
def vectors(client: Client) -> list[list[float]]:
    """Of ``TEXTS``, with the prompt for documents."""
    found: list[list[float]] = client.embed(TEXTS, prompt_name="passage").embeddings.tolist()
    return found
