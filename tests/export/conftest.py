"""Graphs and checkpoints of every architecture, built once a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto

from tests import checkpoints

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def plain_graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelProto]:
    """The exported graph, before any rewrite, of a cross-encoder architecture or a ``cls`` or ``mean`` bi-encoder."""
    from pairwire.export.checkpoint.checkpoint import open_checkpoint
    from pairwire.export.checkpoint.source import find_source
    from pairwire.export.graph import export_graph
    from pairwire.export.progress import quiet_libraries

    made: dict[str, ModelProto] = {}

    def graph(what: str) -> ModelProto:
        if what not in made:
            directory = tmp_path_factory.mktemp("plain") / what
            if what in ("cls", "mean"):
                checkpoints.save_bi_encoder(directory, pooling=what)
            else:
                checkpoints.save_cross_encoder(directory, architecture=what)
            source = find_source(str(directory))
            with quiet_libraries():
                workspace = tmp_path_factory.mktemp("workspace")
                made[what] = export_graph(open_checkpoint(source, source.directory), workspace)
        copy = ModelProto()
        copy.CopyFrom(made[what])
        return copy

    return graph


@pytest.fixture(scope="session")
def three_label_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT cross-encoder with three named labels."""
    return checkpoints.save_cross_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny-nli", labels=3)


@pytest.fixture(scope="session")
def adapter_directory(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with a classifier of its own over ``cross_encoder_checkpoint``."""
    return checkpoints.save_adapter(tmp_path_factory.mktemp("adapter") / "tiny-adapter", cross_encoder_checkpoint)
