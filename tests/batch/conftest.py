"""Toy packages, and runs over them in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pairwire.batch import Job, Summary
from pairwire.batch.lanes import Where
from pairwire.batch.run import BulkConfig, run_bulk
from tests.server import toy_packages
from tests.shared import Shared

Bulk = Callable[..., Summary]
QUICK = {"warmup_s": 0.01}


@pytest.fixture(scope="session")
def scorer_package(shared: Shared) -> Path:
    return shared.directory("package/toy-scorer", toy_packages.write_cross_encoder)


@pytest.fixture(scope="session")
def embedder_package(shared: Shared) -> Path:
    def write(directory: Path) -> None:
        toy_packages.write_bi_encoder(directory, int8_range=4)

    return shared.directory("package/toy-embedder-int8", write)


@pytest.fixture(scope="session")
def sparse_package(shared: Shared) -> Path:
    return shared.directory("package/toy-sparse", toy_packages.write_sparse_encoder)


@pytest.fixture
def bulk(tmp_path: Path) -> Bulk:
    """Runs a job: ``bulk("score", package, inputs, ...)``; further arguments are of the job or of `BulkConfig`."""

    def run(task: str, package: Path, *inputs: Path | str, output: Path | None = None, **given: Any) -> Summary:
        of_config = {name: given.pop(name) for name in list(given) if name in BulkConfig.__dataclass_fields__}
        return run_bulk(
            BulkConfig(
                job=Job.of(task, **given),
                inputs=[str(each) for each in inputs],
                output=output or tmp_path / "out",
                where=of_config.pop("where", Where(package=package, engine=QUICK)),
                **of_config,
            )
        )

    return run
