from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from pairwire.export.passes import (
    absorb_projections,
    constant_reshapes,
    fold_bias,
    prune_last_layer,
    sequence_major,
    unpadded_attention,
)
from tests import graphs, packing
from tests.checkpoints import ARCHITECTURES
from tests.export.passes.test_prune_last_layer import HEADS, HIDDEN, attention_layer
from tests.export.passes.test_sequence_major import OTHER_FORM

NOT_PRUNED = ("mean", "modernbert-mean")


def _before(model: ModelProto, *, fold: bool = False) -> ModelProto:
    """The graph as the pass finds it, with biases that matter: those of the checkpoints are zero."""
    constant_reshapes.apply(model)
    prune_last_layer.apply(model)
    graphs.disturb_biases(model)
    if fold:
        fold_bias.apply(model)
    sequence_major.apply(model)
    return packing.copy(model)


def _products_of_every_token(model: ModelProto) -> int:
    return sum(node.op_type == "MatMul" and "/first" not in node.input[0] for node in model.graph.node)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("what", [*ARCHITECTURES, "cls", "mean"])
def test_results_stay_the_same_but_for_rounding(
    what: str, fold: bool, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(what)
    before = _before(model, fold=fold)
    report = absorb_projections.apply(model)
    found = what not in (*OTHER_FORM, *NOT_PRUNED)
    assert (report.rewritten, report.reason) == (found, "" if found else "no attention has one query")
    assert _products_of_every_token(before) - _products_of_every_token(model) == 2 * found
    for rows, length in ((6, 24), (1, 24), (3, 2), (1, 1)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), rtol=1e-5, atol=1e-5)


def test_a_score_depends_on_neither_padding_nor_batch_mates(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    _before(model)
    absorb_projections.apply(model)
    feeds = graphs.padded_batch(rows=6, length=24)
    together = graphs.run(model, feeds)
    for row, length in enumerate(feeds["attention_mask"].sum(axis=1)):
        alone = {name: value[row : row + 1, :length] for name, value in feeds.items()}
        np.testing.assert_allclose(graphs.run(model, alone), together[row : row + 1], rtol=5e-6)


def test_the_fused_kernel_is_left_to_the_other_layers(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    before = _before(model)
    absorb_projections.apply(model)
    report = unpadded_attention.apply(model, unpadded_from=8)
    assert (report.rewritten, report.reason) == (1, "1 of 2 attentions have another form")
    feeds = graphs.padded_batch(rows=1, length=24)
    np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), atol=1e-5)


def _toy() -> ModelProto:
    model = attention_layer()
    prune_last_layer.apply(model)
    assert sequence_major.apply(model).rewritten == 1
    return model


def _feeds() -> graphs.Feeds:
    return {"x": np.random.default_rng(3).normal(size=(4, 7, HIDDEN)).astype(np.float32)}


def test_projections_without_biases_are_absorbed_too() -> None:
    model = _toy()
    before = packing.copy(model)
    assert absorb_projections.apply(model).rewritten == 1
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {"wk", "wv"}.isdisjoint(constants)
    assert list(constants.values()).count((HEADS, HIDDEN // HEADS, HIDDEN)) == 1  # keys
    assert list(constants.values()).count((HEADS, HIDDEN, HIDDEN // HEADS)) == 1  # values
    np.testing.assert_allclose(graphs.run(model, _feeds()), graphs.run(before, _feeds()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tensor", ["k0/turned", "v0/turned"])
def test_what_somebody_else_reads_stays(tensor: str) -> None:
    model = _toy()
    model.graph.node.append(helper.make_node("Identity", [tensor], ["read"]))
    model.graph.output.append(helper.make_tensor_value_info("read", TensorProto.FLOAT, [None] * 3))
    before = packing.copy(model)
    report = absorb_projections.apply(model)
    assert (report.rewritten, report.reason) == (0, "1 of 1 attentions of one query have another form")
    assert model == before


def test_a_softmax_over_something_else_than_a_sum_is_left_alone() -> None:
    """After Abs a number that is added to all products of a query does not come out again."""
    model = _toy()
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    at = list(model.graph.node).index(softmax)
    model.graph.node.insert(at, helper.make_node("Abs", [softmax.input[0]], ["strange"], name="strange"))
    model.graph.node[at + 1].input[0] = "strange"
    before = packing.copy(model)
    assert absorb_projections.apply(model).rewritten == 0
    assert model == before


def test_every_query_of_another_layer_keeps_its_keys(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    constant_reshapes.apply(model)
    sequence_major.apply(model)
    before = packing.copy(model)
    report = absorb_projections.apply(model)
    assert (report.rewritten, report.reason) == (0, "no attention has one query")
    assert model == before
