from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from pairwire.export.passes import constant_reshapes, prune_last_layer, sequence_major
from pairwire.export.passes.view import add_constant
from tests import graphs
from tests.checkpoints import ARCHITECTURES
from tests.export.passes.test_prune_last_layer import HIDDEN, attention_layer

LAYERS = 2
OTHER_FORM = ("deberta-v2", "deberta-v3", "modernbert", "modernbert-mean")
"""Attention by content and distance, and queries and keys that are turned by their positions."""
ROUNDED = ("distilbert", "mpnet")
"""Where the scale moves over something else: over the product, or before the bias by distance."""


def _before(model: ModelProto, *, prune: bool = True) -> ModelProto:
    constant_reshapes.apply(model)
    if prune:
        prune_last_layer.apply(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("what", [*ARCHITECTURES, "cls", "mean"])
def test_every_result_stays_the_same(what: str, prune: bool, plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph(what)
    before = _before(model, prune=prune)
    report = sequence_major.apply(model)
    found = 0 if what in OTHER_FORM else LAYERS
    assert (report.rewritten, report.reason) == (found, "" if found else "2 of 2 attentions have another form")
    assert graphs.kinds(model).count("FusedMatMul") == 2 * found
    for rows, length in ((6, 24), (1, 24), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        expected = graphs.run(before, feeds)
        # The same products in the same order.
        np.testing.assert_allclose(graphs.run(model, feeds), expected, atol=5e-6 if what in ROUNDED else 0)


@pytest.mark.parametrize("what", ["bert", "mean"])
def test_one_transpose_is_left_of_each_attention(what: str, plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph(what)
    before = graphs.kinds(_before(model)).count("Transpose")
    sequence_major.apply(model)
    assert before == 4 * LAYERS
    # And those of token ids, token types and positions, and of the hidden states where all are pooled.
    assert graphs.kinds(model).count("Transpose") == LAYERS + 3 + (what == "mean")


def test_an_attention_of_another_form_is_named(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    _before(model)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    at = list(model.graph.node).index(softmax)
    model.graph.node.insert(at, helper.make_node("Abs", [softmax.input[0]], ["strange"], name="strange"))
    model.graph.node[at + 1].input[0] = "strange"
    before = ModelProto()
    before.CopyFrom(model)
    report = sequence_major.apply(model)
    assert (report.rewritten, report.reason) == (LAYERS - 1, "1 of 2 attentions have another form")
    feeds = graphs.padded_batch()
    np.testing.assert_array_equal(graphs.run(model, feeds), graphs.run(before, feeds))


def test_what_differs_by_position_is_turned_too(plain_graph: Callable[[str], ModelProto]) -> None:
    """A factor for each position, as some models have: [1, length, 1] must not become one for each row."""
    model = plain_graph("bert")
    _before(model)
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    factors = np.linspace(0.5, 2, 24, dtype=np.float32).reshape(1, 24, 1)
    add_constant(model, "factors", factors)
    plain = norm.output[0]
    at = list(model.graph.node).index(norm)
    norm.output[0] = "before_factors"
    model.graph.node.insert(at + 1, helper.make_node("Mul", ["before_factors", "factors"], [plain], name="factors"))
    before = ModelProto()
    before.CopyFrom(model)
    assert sequence_major.apply(model).rewritten == LAYERS
    feeds = graphs.padded_batch(rows=24, length=24)
    np.testing.assert_array_equal(graphs.run(model, feeds), graphs.run(before, feeds))


def test_a_graph_that_gives_all_hidden_states_is_left_alone(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("mean")
    _before(model)
    norm = [node for node in model.graph.node if node.op_type == "LayerNormalization"][-1]
    model.graph.output.append(helper.make_tensor_value_info(norm.output[0], TensorProto.FLOAT, None))
    before = graphs.kinds(model)
    report = sequence_major.apply(model)
    assert report.reason == "the graph gives the hidden states of all tokens"
    assert graphs.kinds(model) == before


@pytest.mark.parametrize("select", ["Gather", "ReduceMean"])
@pytest.mark.parametrize("expanded_mask", [False, True])
def test_decomposed_norms_and_other_masks_keep_their_result(expanded_mask: bool, select: str) -> None:
    model = attention_layer(expanded_mask=expanded_mask, select=select)
    before = ModelProto()
    before.CopyFrom(model)
    assert sequence_major.apply(model).rewritten == 1
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 5, HIDDEN)).astype(np.float32)}
    np.testing.assert_array_equal(graphs.run(model, feeds), graphs.run(before, feeds))


def test_a_graph_without_attention_is_left_alone() -> None:
    model = graphs.toy([helper.make_node("Relu", ["x"], ["y"])], {}, 3)
    report = sequence_major.apply(model)
    assert (report.rewritten, report.reason) == (0, "")
    assert graphs.kinds(model) == ["Relu"]
