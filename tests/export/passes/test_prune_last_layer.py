from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from pairwire.export.passes import constant_reshapes, prune_last_layer
from tests import graphs
from tests.checkpoints import ARCHITECTURES

HIDDEN, HEADS = 8, 2


def attention_layer(*, expanded_mask: bool = False, select: str = "Gather") -> ModelProto:
    """One post-norm transformer layer on ``x`` and the token that is read, with a residual and a decomposed norm."""
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) for name in ("wq", "wk", "wv", "wo", "wf")}
    constants = {
        **weights,
        "bias": rng.normal(size=HIDDEN).astype(np.float32),
        "split": np.array([0, 0, HEADS, HIDDEN // HEADS]),
        "join": np.array([0, 0, HIDDEN]),
        "zero": np.array(0),
        "last": np.array([-1]),
        "one": np.array([1]),
        "epsilon": np.array(1e-6, dtype=np.float32),
    }
    n = helper.make_node
    nodes = [n("MatMul", ["x", w], [t]) for w, t in (("wq", "q0"), ("wk", "k0"), ("wv", "v0"))]
    nodes += [n("Reshape", [f"{t}0", "split"], [f"{t}1"]) for t in "qkv"]
    nodes += [n("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]), n("Transpose", ["v1"], ["v"], perm=[0, 2, 1, 3])]
    nodes += [n("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]), n("MatMul", ["q", "k"], ["scores0"])]
    # A mask that differs from row to row when it is expanded, so that a wrong row would be noticed.
    nodes += [n("ReduceMean", ["x", "last"], ["m0"], keepdims=0), n("Unsqueeze", ["m0", "one"], ["m1"])]
    nodes += [n("Unsqueeze", ["m1", "one"], ["m2"])]
    if expanded_mask:
        nodes += [n("Transpose", ["m2"], ["m3"], perm=[0, 1, 3, 2]), n("Add", ["m2", "m3"], ["mask"])]
    else:
        nodes += [n("Identity", ["m2"], ["mask"])]
    nodes += [n("Add", ["scores0", "mask"], ["scores"]), n("Softmax", ["scores"], ["p"], axis=-1)]
    nodes += [n("MatMul", ["p", "v"], ["c0"]), n("Transpose", ["c0"], ["c1"], perm=[0, 2, 1, 3])]
    nodes += [n("Reshape", ["c1", "join"], ["c"]), n("MatMul", ["c", "wo"], ["o0"]), n("Add", ["o0", "bias"], ["o"])]
    nodes += [n("Add", ["o", "x"], ["r"]), n("ReduceMean", ["r", "last"], ["mean"]), n("Sub", ["r", "mean"], ["d"])]
    nodes += [
        n("Mul", ["d", "d"], ["d2"]),
        n("ReduceMean", ["d2", "last"], ["var"]),
        n("Add", ["var", "epsilon"], ["e"]),
    ]
    nodes += [n("Sqrt", ["e"], ["s"]), n("Div", ["d", "s"], ["norm"]), n("MatMul", ["norm", "wf"], ["f"])]
    nodes += [n("Erf", ["f"], ["g"]), n("Add", ["g", "norm"], ["hidden"])]
    if select == "Gather":
        nodes += [n("Gather", ["hidden", "zero"], ["y"], axis=1)]
    else:
        nodes += [n("ReduceMean", ["hidden", "one"], ["y"], keepdims=0)]
    return graphs.toy(nodes, constants, 2)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "cls"])
def test_pruned_graph_scores_like_the_unpruned_one_on_a_padded_batch(
    architecture: str, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(architecture)
    batch = graphs.padded_batch()
    before = graphs.run(model, batch)
    constant_reshapes.apply(model)
    report = prune_last_layer.apply(model)
    assert report.rewritten == (0 if architecture == "modernbert-mean" else 1)
    assert bool(report.reason) == (architecture in ("modernbert-mean", "deberta-v2", "deberta-v3"))
    # float32 has 24 bits: tiny checkpoints are scaled up, so the difference is taken relative to the scores.
    assert np.abs(graphs.run(model, batch) - before).max() < 1e-5 * max(1, np.abs(before).max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_last_layer_keeps_only_keys_and_values_for_all_tokens(
    architecture: str, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(architecture)
    constant_reshapes.apply(model)
    prune_last_layer.apply(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    first = [node for node in products if node.output[0].endswith("/first")]
    # Two layers of query, key, value, output and two of the feed-forward; some project their embeddings too.
    expected = {"electra": (13, 4), "albert": (13, 4), "deberta-v2": (12, 3), "deberta-v3": (12, 3)}
    # One product makes queries, keys and values of ModernBERT, and its head has one more.
    expected |= {"modernbert": (9, 3), "modernbert-mean": (9, 0)}
    assert (len(products), len(first)) == expected.get(architecture, (12, 4))


def test_pruning_works_without_constant_reshapes(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    batch = graphs.padded_batch()
    before = graphs.run(model, batch)
    assert prune_last_layer.apply(model).rewritten == 1
    np.testing.assert_allclose(graphs.run(model, batch), before, atol=2e-5)


def test_pruning_again_finds_nothing_more_to_do(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    prune_last_layer.apply(model)
    nodes = len(model.graph.node)
    assert prune_last_layer.apply(model).rewritten == 0
    assert len(model.graph.node) == nodes


@pytest.mark.parametrize("expanded_mask", [False, True])
def test_toy_layer_is_computed_for_one_token(expanded_mask: bool) -> None:
    model = attention_layer(expanded_mask=expanded_mask)
    x = np.random.default_rng(0).normal(size=(3, 5, HIDDEN)).astype(np.float32)
    before = graphs.run(model, {"x": x})
    report = prune_last_layer.apply(model)
    assert (report.rewritten, report.reason) == (1, "")
    np.testing.assert_allclose(graphs.run(model, {"x": x}), before, atol=1e-5)
    full = [node.output[0] for node in model.graph.node if node.op_type == "MatMul" and "/first" not in node.output[0]]
    assert full == ["k0", "v0"]


def test_pruned_toy_layer_takes_rows_of_one_token() -> None:
    model = attention_layer()
    x = np.random.default_rng(0).normal(size=(2, 1, HIDDEN)).astype(np.float32)
    before = graphs.run(model, {"x": x})
    prune_last_layer.apply(model)
    np.testing.assert_allclose(graphs.run(model, {"x": x}), before, atol=1e-5)


def test_mean_pooled_model_is_left_untouched_with_a_reason(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("mean")
    before = model.SerializeToString()
    report = prune_last_layer.apply(model)
    assert report.rewritten == 0
    assert "no place reads only the first token" in report.reason
    assert model.SerializeToString() == before


def test_token_that_is_read_beside_all_others_is_left_untouched_with_a_reason() -> None:
    model = attention_layer()
    model.graph.output.append(helper.make_tensor_value_info("hidden", 1, [None] * 3))
    before = model.SerializeToString()
    report = prune_last_layer.apply(model)
    assert report.rewritten == 0
    assert report.reason == "every token of hidden is read"
    assert model.SerializeToString() == before


def test_unknown_operator_stops_the_walk_and_is_named() -> None:
    weights = np.eye(HIDDEN, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("CumSum", ["a", "axis"], ["b"], name="running_sum"),  # mixes tokens
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Gather", ["c", "zero"], ["y"], axis=1, name="first_token"),
    ]
    model = graphs.toy(nodes, {"w": weights, "axis": np.array(1), "zero": np.array(0)}, 2)
    x = np.random.default_rng(0).normal(size=(2, 4, HIDDEN)).astype(np.float32)
    before = graphs.run(model, {"x": x})
    report = prune_last_layer.apply(model)
    assert report.rewritten == 1  # the product behind it does run on one token
    assert "no rule for CumSum running_sum" in report.reason
    np.testing.assert_allclose(graphs.run(model, {"x": x}), before, atol=1e-6)


def test_graph_without_token_wise_products_is_left_untouched_with_a_reason() -> None:
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["a"], name="running_sum"),
        helper.make_node("Gather", ["a", "zero"], ["y"], axis=1, name="first_token"),
    ]
    model = graphs.toy(nodes, {"axis": np.array(1), "zero": np.array(0)}, 2)
    before = model.SerializeToString()
    report = prune_last_layer.apply(model)
    assert report.rewritten == 0
    assert "first_token" in report.reason
    assert model.SerializeToString() == before


def test_gather_of_another_token_is_not_touched() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gather", ["a", "second"], ["y"], axis=1),
    ]
    model = graphs.toy(nodes, {"w": np.eye(HIDDEN, dtype=np.float32), "second": np.array(1)}, 2)
    assert prune_last_layer.apply(model).rewritten == 0


def test_two_readers_of_the_first_token_share_one_pruned_layer() -> None:
    model = attention_layer()
    gather = model.graph.node[-1]
    gather.output[0] = "y0"
    model.graph.node.append(helper.make_node("Gather", ["hidden", "zero"], ["y1"], axis=1))
    model.graph.node.append(helper.make_node("Add", ["y0", "y1"], ["y"]))
    x = np.random.default_rng(0).normal(size=(2, 4, HIDDEN)).astype(np.float32)
    before = graphs.run(model, {"x": x})
    assert prune_last_layer.apply(model).rewritten == 1
    np.testing.assert_allclose(graphs.run(model, {"x": x}), before, atol=1e-5)
    assert sum(node.op_type == "Erf" for node in model.graph.node) == 1
