from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from pairwire.export.graph import input_names, output_name
from tests import graphs
from tests.checkpoints import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graph_has_the_inputs_of_the_model_and_one_output(
    architecture: str, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(architecture)
    expected = ["input_ids", "attention_mask"]
    if architecture in ("bert", "electra", "albert", "deberta-v2"):
        expected.append("token_type_ids")
    assert input_names(model) == expected
    assert output_name(model) == "logits"
    assert len(model.graph.output) == 1
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.INT64}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_and_normalising_are_inside_the_graph(pooling: str, plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph(pooling)
    assert output_name(model) == "sentence_embedding"
    vectors = graphs.run(model, graphs.padded_batch())
    assert vectors.shape == (6, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_graph_is_standard_onnx_without_constant_nodes(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not {"Constant", "Identity", "Dropout"} & set(graphs.kinds(model))


def test_padding_changes_no_score(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    batch = graphs.padded_batch()
    wider = {name: np.pad(value, ((0, 0), (0, 9))) for name, value in batch.items()}
    np.testing.assert_allclose(graphs.run(model, wider), graphs.run(model, batch), atol=2e-5)
