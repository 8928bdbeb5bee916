"""Fixtures that several rooms share: real packages, exported once a run from tiny checkpoints by the real exporter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import checkpoints

# No example has a time limit: on a busy machine that would measure the machine.
# The same examples every time: what fails, fails again. `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("pairwire", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("pairwire")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers of the tests keep measured costs, in this process and in those that it starts: not at home."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="session")
def cross_encoder_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT cross-encoder with one label."""
    return checkpoints.save_cross_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny-cross-encoder")


@pytest.fixture(scope="session")
def bi_encoder_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT bi-encoder: mean pooling, unit vectors."""
    return checkpoints.save_bi_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny-bi-encoder")


@pytest.fixture(scope="session")
def cross_encoder_package(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of ``cross_encoder_checkpoint`` in float32."""
    return _exported(cross_encoder_checkpoint, tmp_path_factory.mktemp("package") / "tiny-cross-encoder")


@pytest.fixture(scope="session")
def bi_encoder_package(bi_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of ``bi_encoder_checkpoint`` in float32."""
    return _exported(bi_encoder_checkpoint, tmp_path_factory.mktemp("package") / "tiny-bi-encoder")


def _exported(checkpoint: Path, directory: Path) -> Path:
    # Imported here: torch takes seconds, and most of the suite does without.
    from pairwire.export import ExportConfig, export_checkpoint

    export_checkpoint(ExportConfig(tune=False, checkpoint=str(checkpoint), output=directory, precisions=("fp32",)))
    return directory
