"""One server of a cross-encoder, a classifier, a bi-encoder and a sparse encoder, for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from pairwire.server.config import RolesConfig
from tests.server import serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    scorer_package: Path, classifier_package: Path, embedder_package: Path, sparse_package: Path
) -> AsyncIterator[serving.Served]:
    packages = (scorer_package, classifier_package, embedder_package, sparse_package)
    settings = replace(serving.config(*packages), roles=RolesConfig(default_info_model="embedder"))
    async with serving.serve(settings=settings) as server:
        yield server
