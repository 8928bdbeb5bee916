from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pairwire.export.passes import embed_layer_norm, packed
from tests import graphs, packing
from tests.architectures import FIRST

NOTHING = (0, "no normalised sum of word and position embeddings")
TOKENS = 6


def embeddings(*summands: str, epsilon: float = 0.1, outer: tuple[str, ...] = ()) -> ModelProto:
    """The normalised sum of look-ups by the given inputs and of constants, added one after the other."""
    rng = np.random.default_rng(1)
    nodes: list[NodeProto] = []
    total = ""
    for at, name in enumerate(summands):
        summand = name
        if name.endswith("_ids"):
            summand = f"{name}/{at}"
            nodes.append(helper.make_node("Gather", [f"table/{name}", name], [summand]))
        if total:
            nodes.append(helper.make_node("Add", [total, summand], [f"sum{at}"]))
        total = f"sum{at}" if total else summand
    for name in outer:
        nodes.append(helper.make_node(name, [total], [f"{total}/{name}"]))
        total = f"{total}/{name}"
    nodes.append(helper.make_node("LayerNormalization", [total, "gamma", "beta"], ["y"], axis=-1, epsilon=epsilon))
    inputs = ("input_ids", "token_type_ids", "position_ids")
    constants: dict[str, npt.NDArray[np.generic]] = {
        **{f"table/{name}": rng.normal(size=(9, 8)).astype(np.float32) for name in inputs},
        **{name: rng.normal(size=8).astype(np.float32) for name in ("gamma", "beta", "row", "row2")},
    }
    model = graphs.toy(nodes, constants, 2)
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT32, ["tokens"]) for name in inputs)
    return model


def ids() -> Mapping[str, npt.NDArray[np.int32]]:
    rng = np.random.default_rng(0)
    names = ("input_ids", "token_type_ids", "position_ids")
    return {name: rng.integers(0, 9, TOKENS).astype(np.int32) for name in names}


@pytest.mark.parametrize("what", [*FIRST, "cls", "mean"])
def test_results_stay_the_same_but_for_rounding(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    before = packing.fuse(model)
    packed.apply(model)
    report = embed_layer_norm.apply(model)
    assert report.name == "embed_layer_norm"
    # Two summands of RoBERTa's may have become one SkipLayerNormalization before.
    if "roberta" in what and not report.rewritten:
        assert report.reason == NOTHING[1]
        return
    assert (report.rewritten, report.reason) == (1, "")
    assert graphs.kinds(model).count("EmbedLayerNormalization") == 1
    assert "LayerNormalization" not in graphs.kinds(model)
    # No other look-up is left: not of words, positions or types.
    assert all(node.input[1] == "packed/begins" for node in model.graph.node if node.op_type == "Gather")
    for rows, length in ((6, 24), (1, 24), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        assert packing.close(packing.run(model, feeds), graphs.run(before, feeds))


@pytest.mark.parametrize("what", ["cls", "mean"])
def test_the_only_token_type_is_added_to_the_positions(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    positions, types = (
        next(value for name, value in tables.items() if part in name)
        for part in ("position_embeddings", "token_type_embeddings")
    )
    packing.pack(model)
    node = next(node for node in model.graph.node if node.op_type == "EmbedLayerNormalization")
    assert (node.input[1], node.input[4]) == ("", "")
    table = next(numpy_helper.to_array(one) for one in model.graph.initializer if one.name == node.input[3])
    np.testing.assert_array_equal(table, positions + types[0])


@pytest.mark.parametrize(
    "summands",
    [
        ("input_ids", "token_type_ids", "position_ids"),
        ("position_ids", "input_ids", "token_type_ids"),
        ("input_ids", "position_ids"),
        ("input_ids", "row", "position_ids"),
        ("row", "position_ids", "input_ids"),
    ],
)
def test_sum_in_any_order_becomes_one_operator(summands: tuple[str, ...]) -> None:
    model = embeddings(*summands)
    expected = graphs.run(model, ids())
    report = embed_layer_norm.apply(model)
    assert (report.rewritten, report.reason) == (1, "")
    kinds = graphs.kinds(model)
    lookups = sum(name.endswith("_ids") for name in summands)
    assert kinds == ["Unsqueeze"] * lookups + ["EmbedLayerNormalization", "Squeeze"]
    np.testing.assert_allclose(graphs.run(model, ids()), expected, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        embeddings("input_ids", "token_type_ids"),
        embeddings("token_type_ids", "position_ids"),
        embeddings("input_ids", "input_ids", "position_ids"),
        embeddings("input_ids", "row", "row2", "position_ids"),
        embeddings("input_ids", "position_ids", outer=("Tanh",)),
    ],
    ids=["no positions", "no words", "words twice", "two constants", "not a sum"],
)
def test_another_sum_is_left_alone(model: ModelProto) -> None:
    graphs.run(model, ids())  # the graph is one that runs
    _assert_untouched(model)


def test_lookup_by_something_else_is_left_alone() -> None:
    model = embeddings("input_ids", "position_ids", "token_type_ids")
    model.graph.node.insert(0, helper.make_node("Identity", ["token_type_ids"], ["types"]))
    next(node for node in model.graph.node if node.input[0] == "table/token_type_ids").input[1] = "types"
    _assert_untouched(model)


def test_normalisation_without_a_shift_is_left_alone() -> None:
    model = embeddings("input_ids", "position_ids")
    del model.graph.node[-1].input[2:]
    _assert_untouched(model)


def test_graph_that_is_not_packed_is_left_alone(plain_graph: packing.Graph) -> None:
    _assert_untouched(plain_graph("bert"))


def _assert_untouched(model: ModelProto) -> None:
    before = model.SerializeToString()
    report = embed_layer_norm.apply(model)
    assert (report.rewritten, report.reason) == NOTHING
    assert model.SerializeToString() == before
