from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.export.passes import pooling
from pairwire.export.passes.view import remove_dead, sort_nodes
from tests import graphs, packing

HIDDEN = 8
LENGTHS = (3, 1, 4)


def token_wise(*more: NodeProto, index: int = 0) -> ModelProto:
    """Gelu(x W + bias), what ``more`` makes of it under the name "last", and one token of that."""
    rng = np.random.default_rng(1)
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "w"], ["a"], name="a"),
        n("Add", ["bias", "a"], ["b"], name="b"),
        n("Erf", ["b"], ["c"], name="c"),
        *(more or [n("LayerNormalization", ["c", "bias", "bias"], ["last"], name="last")]),
        n("Gather", ["last", "index"], ["first"], axis=1, name="first"),
        n("MatMul", ["first", "w"], ["y"]),
    ]
    constants = {
        "w": rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32),
        "bias": rng.normal(size=HIDDEN).astype(np.float32),
        "factors": rng.normal(size=(4, HIDDEN)).astype(np.float32),
        "index": np.array(index),
        "zero": np.array(0),
    }
    return graphs.toy(nodes, constants, 2)


def mean(*, axis: int = 1, mask: str = "mask", count: str = "mask", clipped: bool = True) -> ModelProto:
    """The mean of x over the tokens that attention_mask names."""
    n = helper.make_node
    nodes = [
        n("Unsqueeze", ["attention_mask", "last"], ["long"]),
        n("Cast", ["long"], ["mask"], to=TensorProto.FLOAT),
        n("Abs", ["x"], ["other"]),
        n("Abs", ["mask"], ["another"]),
        n("Mul", ["x", mask], ["weighted"]),
        n("ReduceSum", ["weighted", "axis"], ["sum"], keepdims=0),
        n("ReduceSum", [count, "axis"], ["count"], keepdims=0),
        n("Clip" if clipped else "Add", ["count", "least"], ["clipped"]),
        n("Div", ["sum", "clipped"], ["mean"]),
        n("Shape", ["mean"], ["shape"]),
        n("ReduceL2", ["mean", "last"], ["norm"]),
        n("Expand", ["norm", "shape"], ["norms"]),
        n("Div", ["mean", "norms"], ["y"]),
    ]
    constants = {"last": np.array([-1]), "axis": np.array([axis]), "least": np.array(0.5, np.float32)}
    model = graphs.toy(nodes, constants, 2)
    model.graph.input.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["rows", "length"]))
    return model


def padded() -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int64]]:
    """Rows of LENGTHS with numbers in the padding, too."""
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    x = np.random.default_rng(0).normal(size=(*mask.shape, HIDDEN)).astype(np.float32)
    return {"x": x, "attention_mask": mask.astype(np.int64)}


def flat(*, empty: int = 0, fill: int = 0) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int32]]:
    """The same rows without padding, behind ``empty`` rows and before one of ``fill`` tokens, if any."""
    given = padded()
    x = np.concatenate([given["x"][given["attention_mask"].astype(bool)], np.full((fill, HIDDEN), 9, np.float32)])
    ends = np.cumsum([*[0] * empty, *LENGTHS, *[fill] * bool(fill)])
    return {
        "x": x.astype(np.float32),
        "input_ids": np.zeros(len(x), np.int32),
        "cumulative_lengths": np.concatenate([[0], ends]).astype(np.int32),
    }


def finish(model: ModelProto) -> None:
    """What `packed` does behind the two functions."""
    remove_dead(model)
    make = helper.make_tensor_value_info
    del model.graph.input[:]
    model.graph.input.append(make("x", TensorProto.FLOAT, ["tokens", HIDDEN]))
    model.graph.input.append(make("input_ids", TensorProto.INT32, ["tokens"]))
    model.graph.input.append(make("cumulative_lengths", TensorProto.INT32, ["rows_and_end"]))
    sort_nodes(model)


def test_first_token_is_the_one_with_which_a_row_begins() -> None:
    model = token_wise()
    expected = graphs.run(model, padded())
    pooling.pack_first_token(model)
    finish(model)
    np.testing.assert_allclose(graphs.run(model, flat(fill=2))[:3], expected, atol=1e-5)
    np.testing.assert_allclose(graphs.run(model, flat(empty=2))[2:5], expected, atol=1e-5)


def test_operators_that_treat_tokens_alone_are_computed_at_the_first_tokens_only() -> None:
    model = token_wise()
    pooling.pack_first_token(model)
    finish(model)
    assert graphs.kinds(model) == [
        "Slice",
        "Gather",
        "MatMul",
        "Add",
        "Erf",
        "LayerNormalization",
        "Identity",
        "MatMul",
    ]
    assert list(model.graph.node[1].input) == ["x", "packed/begins"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("CumSum", ["c", "zero"], ["last"], name="strange"),  # reads other tokens
        helper.make_node("Add", ["c", "factors"], ["last"], name="strange"),  # differs from token to token
        helper.make_node("MatMul", ["factors", "c"], ["last"], name="strange"),  # mixes tokens
    ],
    ids=lambda node: node.op_type,
)
def test_tokens_are_taken_behind_an_operator_that_may_read_others(node: NodeProto) -> None:
    model = token_wise(node)
    pooling.pack_first_token(model)
    finish(model)
    assert packing.read_by(model, "packed/begins") == ["Gather"]
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    assert list(gather.input) == ["last", "packed/begins"]


def test_what_attention_reads_is_computed_for_all_tokens_once() -> None:
    """Behind the attention b is read again, as a residual."""
    n = helper.make_node
    attention = n("PackedMultiHeadAttention", ["b", "b", "b"], ["d"], name="attention", domain="com.microsoft")
    model = token_wise(attention, n("Add", ["b", "d"], ["last"], name="last"))
    pooling.pack_first_token(model)
    finish(model)
    gathers = [node.input[0] for node in model.graph.node if node.op_type == "Gather"]
    assert sorted(gathers) == ["b", "d"]
    assert graphs.kinds(model).count("MatMul") == 2  # that of all tokens and that of the head
    assert graphs.kinds(model).count("Add") == 2


@pytest.mark.parametrize("index", [1, -1])
def test_another_token_is_not_the_first(index: int) -> None:
    model = token_wise(index=index)
    before = model.SerializeToString()
    pooling.pack_first_token(model)
    assert model.SerializeToString() == before


def test_table_that_is_read_along_its_second_axis_holds_no_tokens() -> None:
    model = token_wise()
    next(node for node in model.graph.node if node.op_type == "Gather").input[0] = "factors"
    before = model.SerializeToString()
    pooling.pack_first_token(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("empty", [0, 2])
@pytest.mark.parametrize("fill", [0, 3])
def test_mean_is_that_of_the_tokens_of_a_row(empty: int, fill: int) -> None:
    model = mean()
    expected = graphs.run(model, padded())
    pooling.pack_mean(model)
    finish(model)
    result = graphs.run(model, flat(empty=empty, fill=fill))
    np.testing.assert_allclose(result[empty : empty + len(LENGTHS)], expected, atol=1e-6)


def test_mean_without_a_unit_length_is_divided_by_the_number_of_tokens_and_that_of_no_tokens_is_zero() -> None:
    model = mean()
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["mean"], ["y"]))
    expected = graphs.run(model, padded())
    pooling.pack_mean(model)
    finish(model)
    result = graphs.run(model, flat(empty=2))
    np.testing.assert_allclose(result[2:5], expected, atol=1e-6)
    np.testing.assert_array_equal(result[:2], 0)


def test_mean_keeps_the_least_number_of_tokens() -> None:
    model = mean()
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["mean"], ["y"]))
    least = next(tensor for tensor in model.graph.initializer if tensor.name == "least")
    least.CopyFrom(helper.make_tensor("least", TensorProto.FLOAT, [], [2.0]))
    expected = graphs.run(model, padded())
    pooling.pack_mean(model)
    finish(model)
    np.testing.assert_allclose(graphs.run(model, flat())[:3], expected, atol=1e-6)


def test_norm_is_not_repeated_before_the_division() -> None:
    model = mean()
    pooling.pack_mean(model)
    finish(model)
    assert "Expand" not in graphs.kinds(model)
    assert list(model.graph.node[-1].input) == ["mean", "norm"]


@pytest.mark.parametrize(
    "model",
    [
        mean(axis=2),  # over another axis
        mean(count="other"),  # not the number of the tokens that are summed
        mean(count="another"),
        mean(mask="other", count="other"),  # weights that have nothing to do with the mask
        mean(clipped=False),  # a sum by another number
    ],
    ids=["axis", "count", "another count", "mask", "clip"],
)
def test_what_is_not_a_masked_mean_is_left_alone(model: ModelProto) -> None:
    model.graph.node[-1].input[1] = "norm"  # no Expand to drop
    before = model.SerializeToString()
    pooling.pack_mean(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("divided", "shape"), [(["norms", "mean"], "mean"), (["mean", "norms"], "norm")])
def test_expand_of_another_form_stays(divided: Sequence[str], shape: str) -> None:
    model = mean()
    model.graph.node[-1].input[:] = divided
    next(node for node in model.graph.node if node.op_type == "Shape").input[0] = shape
    pooling.pack_mean(model)
    finish(model)
    assert "Expand" in graphs.kinds(model)
