"""Graphs and checkpoints of every architecture, built once a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto

from tests import checkpoints
from tests.shared import Shared

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def plain_checkpoint(cross_encoder_checkpoint: Path, shared: Shared) -> Callable[[str], Path]:
    """The checkpoint of a cross-encoder architecture, or of a ``cls`` or ``mean`` bi-encoder."""

    def checkpoint(what: str) -> Path:
        if what == "bert":
            return cross_encoder_checkpoint
        if what in ("cls", "mean"):
            return shared.directory(
                f"plain/{what}", lambda directory: checkpoints.save_bi_encoder(directory, pooling=what)
            )
        return shared.directory(
            f"plain/{what}", lambda directory: checkpoints.save_cross_encoder(directory, architecture=what)
        )

    return checkpoint


@pytest.fixture(scope="session")
def plain_graph(
    plain_checkpoint: Callable[[str], Path], shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ModelProto]:
    """The exported graph of ``plain_checkpoint``, before any rewrite."""
    from pairwire.export.checkpoint.checkpoint import open_checkpoint
    from pairwire.export.checkpoint.source import find_source
    from pairwire.export.graph import export_graph
    from pairwire.export.progress import quiet_libraries

    def exported(what: str) -> bytes:
        source = find_source(str(plain_checkpoint(what)))
        with quiet_libraries():
            graph = export_graph(open_checkpoint(source, source.directory), tmp_path_factory.mktemp("workspace"))
        written: bytes = graph.SerializeToString()
        return written

    def graph(what: str) -> ModelProto:
        return ModelProto.FromString(shared.value(f"plain-graph/{what}", lambda: exported(what)))

    return graph


@pytest.fixture(scope="session")
def three_label_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT cross-encoder with three named labels."""
    return checkpoints.save_cross_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny-nli", labels=3)


@pytest.fixture(scope="session")
def adapter_directory(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with a classifier of its own over ``cross_encoder_checkpoint``."""
    return checkpoints.save_adapter(tmp_path_factory.mktemp("adapter") / "tiny-adapter", cross_encoder_checkpoint)
