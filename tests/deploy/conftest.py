"""A package of milliseconds, for tests that start a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server import toy_packages
from tests.shared import Shared


@pytest.fixture(scope="session")
def package(shared: Shared) -> Path:
    """A cross-encoder."""
    return shared.directory("toy/deployed", toy_packages.write_cross_encoder)
