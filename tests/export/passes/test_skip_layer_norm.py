from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.export.passes import constant_reshapes, skip_layer_norm
from tests import graphs, packing
from tests.architectures import FIRST

HIDDEN = 8
NOTHING = (0, "1 of 1 normalisations are not of a residual sum")


def residual(
    *,
    product: Sequence[str] = ("product", "bias"),
    total: Sequence[str] = ("biased", "x"),
    more: Sequence[NodeProto] = (),
    **norm: float,
) -> ModelProto:
    """The normalised x W + bias + x; ``product`` and ``total`` are the operands of the two sums."""
    rng = np.random.default_rng(1)
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "w"], ["product"]),
        n("Add", list(product), ["biased"]),
        n("Add", list(total), ["total"]),
        n("LayerNormalization", ["total", "gamma", "beta"], ["y"], **norm),
        *more,
    ]
    constants = {
        "w": rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32),
        **{name: rng.normal(size=HIDDEN).astype(np.float32) for name in ("bias", "gamma", "beta")},
        "factors": rng.normal(size=(1, 3, HIDDEN)).astype(np.float32),
    }
    return graphs.toy(nodes, constants, 3)


def batch() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"x": np.random.default_rng(0).normal(size=(2, 3, HIDDEN)).astype(np.float32)}


@pytest.mark.parametrize("what", [*FIRST, "cls", "mean"])
def test_results_stay_the_same_but_for_rounding(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.spread_biases(model)
    constant_reshapes.apply(model)
    before = packing.copy(model)
    report = skip_layer_norm.apply(model)
    assert report.name == "skip_layer_norm"
    # Two of each layer; RoBERTa's embeddings are a sum of two tensors, too, which a later pass may want for itself.
    assert report.rewritten in ((4, 5) if "roberta" in what else (4,))
    assert report.reason == ("" if report.rewritten == 5 else "1 of 5 normalisations are not of a residual sum")
    kinds = graphs.kinds(model)
    assert kinds.count("SkipLayerNormalization") == report.rewritten
    assert kinds.count("LayerNormalization") == 5 - report.rewritten
    # Each takes the place of its sum, and those of the layers of the bias too.
    assert graphs.kinds(before).count("Add") - kinds.count("Add") == 4 + report.rewritten
    for rows, length in ((6, 24), (1, 24), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        assert packing.close(graphs.run(model, feeds), graphs.run(before, feeds))


@pytest.mark.parametrize("product", [("product", "bias"), ("bias", "product")])
@pytest.mark.parametrize("total", [("biased", "x"), ("x", "biased")])
def test_sum_and_bias_are_found_in_either_order(product: Sequence[str], total: Sequence[str]) -> None:
    model = residual(product=product, total=total)
    expected = graphs.run(model, batch())
    report = skip_layer_norm.apply(model)
    assert (report.rewritten, report.reason) == (1, "")
    assert graphs.kinds(model) == ["MatMul", "SkipLayerNormalization"]
    assert list(model.graph.node[1].input) == ["product", "x", "gamma", "beta", "bias"]
    np.testing.assert_allclose(graphs.run(model, batch()), expected, atol=1e-5)


def test_sum_without_a_bias_is_fused_too() -> None:
    model = residual(total=("product", "x"))
    expected = graphs.run(model, batch())
    assert skip_layer_norm.apply(model).rewritten == 1
    assert list(model.graph.node[1].input) == ["product", "x", "gamma", "beta"]
    np.testing.assert_allclose(graphs.run(model, batch()), expected, atol=1e-5)


def test_epsilon_is_kept() -> None:
    model = residual(epsilon=0.5)
    expected = graphs.run(model, batch())
    assert skip_layer_norm.apply(model).rewritten == 1
    np.testing.assert_allclose(graphs.run(model, batch()), expected, atol=1e-5)


def test_biased_product_that_somebody_else_reads_keeps_its_bias() -> None:
    model = residual(more=[helper.make_node("Abs", ["biased"], ["z"])])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * 3))
    expected = graphs.run_all(model, batch())
    assert skip_layer_norm.apply(model).rewritten == 1
    fused = next(node for node in model.graph.node if node.op_type == "SkipLayerNormalization")
    assert list(fused.input) == ["biased", "x", "gamma", "beta"]  # computed once
    for result, one in zip(graphs.run_all(model, batch()), expected, strict=True):
        np.testing.assert_allclose(result, one, atol=1e-5)


def test_sum_that_the_next_residual_reads_is_left_alone() -> None:
    """As in models that normalise first: the sum itself goes on."""
    model = residual(more=[helper.make_node("Abs", ["total"], ["z"])])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * 3))
    _assert_untouched(model)


def test_sum_that_is_an_output_is_left_alone() -> None:
    model = residual()
    model.graph.output.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, [None] * 3))
    _assert_untouched(model)


def test_summand_that_is_repeated_for_each_row_is_left_alone() -> None:
    _assert_untouched(residual(total=("biased", "factors")))


def test_normalisation_of_another_axis_is_left_alone() -> None:
    model = residual(axis=1)
    for tensor in model.graph.initializer:
        if tensor.name in ("gamma", "beta"):
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, [3, HIDDEN], np.ones(3 * HIDDEN)))
    graphs.run(model, batch())  # the graph is one that runs
    _assert_untouched(model)


def test_normalisation_without_a_shift_is_left_alone() -> None:
    model = residual()
    del model.graph.node[-1].input[2:]
    _assert_untouched(model)


def test_graph_without_normalisations_has_nothing_to_tell() -> None:
    model = graphs.toy([helper.make_node("Relu", ["x"], ["y"])], {}, 3)
    before = model.SerializeToString()
    report = skip_layer_norm.apply(model)
    assert (report.rewritten, report.reason) == (0, "")
    assert model.SerializeToString() == before


def _assert_untouched(model: ModelProto) -> None:
    before = model.SerializeToString()
    report = skip_layer_norm.apply(model)
    assert (report.rewritten, report.reason) == NOTHING
    assert model.SerializeToString() == before
