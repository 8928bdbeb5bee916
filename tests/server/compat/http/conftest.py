"""One server of four models for all tests of this folder that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import huggingface_hub
import pytest

from tests.server.compat.http.running import Running, running


@pytest.fixture(scope="session")
def server(
    scorer_package: Path, classifier_package: Path, embedder_package: Path, sparse_package: Path
) -> Iterator[Running]:
    """``scorer``, ``classifier``, ``embedder`` and ``splade``."""
    with running(scorer_package, classifier_package, embedder_package, sparse_package) as found:
        yield found


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hugging Face's client may call the server: with HF_HUB_OFFLINE, as tests have it, it refuses any address."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.utils.reset_sessions()
    yield
    huggingface_hub.utils.reset_sessions()


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with server.client() as client:
        yield client
