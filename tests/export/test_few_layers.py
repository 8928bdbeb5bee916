"""Which layers of real graphs are found to be like each other, and what stays of them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from pairwire.export import passes, storage
from pairwire.export.checkpoint.checkpoint import open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.few_layers import few_layers
from pairwire.export.graph import export_graph
from pairwire.export.progress import quiet_libraries
from pairwire.server.runtime.ort import ort
from tests import checkpoints, graphs

LAYERS = 5


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelProto]:
    """The graph of a cross-encoder of that architecture with ``LAYERS`` layers, after the passes that always run."""

    @functools.cache
    def make(architecture: str) -> ModelProto:
        folder = tmp_path_factory.mktemp(architecture)
        directory = checkpoints.save_cross_encoder(folder / "checkpoint", architecture=architecture, layers=LAYERS)
        with quiet_libraries():
            model = export_graph(open_checkpoint(find_source(str(directory)), directory), folder)
        for rewrite in passes.ALWAYS:
            rewrite(model)
        return model

    return make


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("architecture", ["bert", "deberta-v3", "modernbert"])
def test_two_of_the_layers_that_repeat_stay_and_the_graph_runs(
    architecture: str, deep: Callable[[str], ModelProto]
) -> None:
    model = deep(architecture)
    before = model.SerializeToString()
    few = few_layers(model, whole_below=0)
    assert few is not None
    assert model.SerializeToString() == before
    assert few.kept == 2
    assert few.of in range(3, LAYERS + 1)  # one's first layer, or the last at one token, is unlike the others
    norms = operators(model)["LayerNormalization"], operators(few.model)["LayerNormalization"]
    gone = few.of - few.kept
    assert norms[0] - norms[1] == gone * (norms[0] // LAYERS)
    session = storage.open_session(few.model, ort.SessionOptions())
    feeds = graphs.padded_batch()
    (scores,) = session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    (whole,) = storage.open_session(model, ort.SessionOptions()).run(
        None, {value.name: feeds[value.name] for value in session.get_inputs()}
    )
    assert scores.shape == whole.shape
    assert np.isfinite(scores).all()


def test_a_small_model_is_measured_whole(deep: Callable[[str], ModelProto]) -> None:
    assert few_layers(deep("bert")) is None


def test_what_has_two_layers_or_none_that_repeat_stays_whole(plain_graph: Callable[[str], ModelProto]) -> None:
    assert few_layers(plain_graph("bert"), whole_below=0) is None


def test_long_tables_are_cut_and_every_token_finds_a_row(
    deep: Callable[[str], ModelProto], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pairwire.export.few_layers._TABLE_ROWS", 16)
    few = few_layers(deep("bert"), whole_below=0)
    assert few is not None
    assert max(tensor.dims[0] for tensor in few.model.graph.initializer if len(tensor.dims) == 2) == 64  # no table's
    feeds = graphs.padded_batch()
    assert feeds["input_ids"].max() >= 16
    session = storage.open_session(few.model, ort.SessionOptions())
    (scores,) = session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})
    assert np.isfinite(scores).all()
