"""Fixtures that several rooms share: real packages, exported once a run from tiny checkpoints by the real exporter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import checkpoints
from tests.shared import Shared

pytest_plugins = ["tests.isolation"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the CPUs: torch and BLAS with a thread for each CPU in each worker would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No example has a time limit: on a busy machine that would measure the machine.
# The same examples every time: what fails, fails again. `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("pairwire", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("pairwire")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is not for every run."""
    parser.addoption("--screenshots", action="store_true", help="write the pictures that the docs show")
    parser.addoption("--fetch", action="store_true", help="run what fetches packages of other languages too")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers of the tests keep measured costs, in this process and in those that it starts: not at home."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """What all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return Shared((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared")


@pytest.fixture(scope="session")
def cross_encoder_checkpoint(shared: Shared) -> Path:
    """A BERT cross-encoder with one label."""
    return shared.directory("checkpoint/tiny-cross-encoder", checkpoints.save_cross_encoder)


@pytest.fixture(scope="session")
def bi_encoder_checkpoint(shared: Shared) -> Path:
    """A BERT bi-encoder: mean pooling, unit vectors."""
    return shared.directory("checkpoint/tiny-bi-encoder", checkpoints.save_bi_encoder)


@pytest.fixture(scope="session")
def cross_encoder_package(cross_encoder_checkpoint: Path, shared: Shared) -> Path:
    """The package of ``cross_encoder_checkpoint`` in float32."""
    return shared.directory(
        "package/tiny-cross-encoder", lambda directory: _export(cross_encoder_checkpoint, directory)
    )


@pytest.fixture(scope="session")
def bi_encoder_package(bi_encoder_checkpoint: Path, shared: Shared) -> Path:
    """The package of ``bi_encoder_checkpoint`` in float32."""
    return shared.directory("package/tiny-bi-encoder", lambda directory: _export(bi_encoder_checkpoint, directory))


def _export(checkpoint: Path, directory: Path) -> None:
    # Imported here: torch takes seconds, and most of the suite does without.
    from pairwire.export import ExportConfig, export_checkpoint

    export_checkpoint(ExportConfig(tune=False, checkpoint=str(checkpoint), output=directory, precisions=("fp32",)))
