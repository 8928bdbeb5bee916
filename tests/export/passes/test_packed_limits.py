"""What no packed graph may be made of, and no fused operator: refused, or left as it is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from pairwire.export.passes import bias_gelu, packed, pooling, skip_layer_norm
from pairwire.export.passes.view import add_constant
from tests import graphs, packing
from tests.export.passes import test_bias_gelu, test_pooling, test_skip_layer_norm


def test_types_behind_a_cast_are_not_dropped(plain_graph: packing.Graph) -> None:
    model = plain_graph("bert")
    lookup = next(node for node in model.graph.node if "token_type_ids" in node.input)
    lookup.input[1] = "types"
    model.graph.node.insert(0, helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.INT64))
    before = packing.fuse(model)
    try:
        packed.apply(model)
    except packed.NotPackable:
        return
    feeds = graphs.padded_batch()
    assert packing.close(packing.run(model, feeds), graphs.run(before, feeds))


def test_weighted_mean_is_not_taken_for_a_mean() -> None:
    model = test_pooling.mean(mask="weights", count="weights")
    add_constant(model, "steps", np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1))
    at = next(i for i, node in enumerate(model.graph.node) if "mask" in node.output) + 1
    model.graph.node.insert(at, helper.make_node("Mul", ["mask", "steps"], ["weights"]))
    divide = model.graph.node[-5].op_type
    assert divide == "Div"
    pooling.pack_mean(model)
    assert "LessOrEqual" not in graphs.kinds(model)


def test_another_token_than_the_first_is_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("cls")
    packing.fuse(model)
    gather = next(node for node in model.graph.node if node.input[0] == "token_embeddings" and node.op_type == "Gather")
    gather.input[1] = add_constant(model, "second", np.array(1))
    with pytest.raises(packed.NotPackable):
        packed.apply(model)


def test_two_readers_of_the_first_token_share_one_layer(plain_graph: packing.Graph) -> None:
    model = plain_graph("cls")
    gather = next(node for node in model.graph.node if node.input[0] == "token_embeddings" and node.op_type == "Gather")
    at = list(model.graph.node).index(gather)
    result, gather.output[0] = gather.output[0], "y0"
    model.graph.node.insert(at + 1, helper.make_node("Gather", list(gather.input), ["y1"], name="y1", axis=1))
    model.graph.node.insert(at + 2, helper.make_node("Add", ["y0", "y1"], [result], name="sum"))
    before = packing.fuse(model)
    packed.apply(model)
    feeds = graphs.padded_batch()
    assert packing.close(packing.run(model, feeds), graphs.run(before, feeds))


def test_graph_that_gives_all_hidden_states_is_refused(plain_graph: packing.Graph) -> None:
    model = plain_graph("mean")
    model.graph.output.append(helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, [None] * 3))
    packing.fuse(model)
    with pytest.raises(packed.NotPackable):
        packed.apply(model)


def test_bias_of_one_number_is_left_alone() -> None:
    for model, apply in (
        (test_skip_layer_norm.residual(), skip_layer_norm.apply),
        (test_bias_gelu.gelu(), bias_gelu.apply),
    ):
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
        bias.CopyFrom(helper.make_tensor("bias", TensorProto.FLOAT, [1], [0.5]))
        expected = graphs.run(model, test_bias_gelu.batch())
        apply(model)
        np.testing.assert_allclose(graphs.run(model, test_bias_gelu.batch()), expected, atol=1e-5)


def test_operators_need_no_name() -> None:
    model = test_pooling.token_wise()
    for node in model.graph.node:
        node.name = ""
    pooling.pack_first_token(model)
    test_pooling.finish(model)
    graphs.run(model, test_pooling.flat())


def test_nothing_of_a_refused_graph_is_rewritten(plain_graph: packing.Graph) -> None:
    model = plain_graph("mean")
    packing.fuse(model)
    total = next(node for node in model.graph.node if node.op_type == "ReduceSum")
    total.op_type = "ReduceMean"
    before = model.SerializeToString()
    with pytest.raises(packed.NotPackable):
        packed.apply(model)
    assert model.SerializeToString() == before
