from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pairwire.export.passes import half
from pairwire.export.passes.view import GraphView, attribute
from tests import graphs, packing
from tests.architectures import FIRST

HIDDEN = 8
LARGEST = 65504
EVERY = [*FIRST, "cls", "mean"]


def encoder(*more: NodeProto, **constants: npt.NDArray[np.generic]) -> ModelProto:
    """The normalised x W + shift and what ``more`` makes of it; a head that reads W and shift again otherwise."""
    n = helper.make_node
    rng = np.random.default_rng(1)
    nodes = [
        n("MatMul", ["x", "w"], ["a"]),
        n("Add", ["a", "shift"], ["b"]),
        n("LayerNormalization", ["b", "gamma", "beta"], ["hidden"], axis=-1),
        *(more or [n("MatMul", ["hidden", "w"], ["c"]), n("Add", ["c", "shift"], ["y"])]),
    ]
    values: dict[str, npt.NDArray[np.generic]] = {
        "w": rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32),
        **{name: rng.normal(size=HIDDEN).astype(np.float32) for name in ("gamma", "beta", "shift")},
    }
    return graphs.toy(nodes, values | constants, 3)


def batch() -> dict[str, npt.NDArray[np.float32]]:
    return {"x": np.random.default_rng(0).normal(size=(2, 3, HIDDEN)).astype(np.float32)}


def constants(model: ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("what", EVERY)
def test_packed_graph_keeps_its_results_but_for_eleven_bits(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packing.pack(model)
    feeds = graphs.padded_batch()
    expected = packing.run(model, feeds)
    report = half.apply(model)
    assert (report.name, report.reason) == ("half", "")
    result = packing.run(model, feeds)
    assert result.dtype == np.float32
    assert packing.close(result, expected, tolerance=0.005)
    assert not np.array_equal(result, expected)


@pytest.mark.parametrize("what", EVERY)
def test_graph_with_padding_and_masks_keeps_them_too(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    before = packing.copy(model)
    feeds = graphs.padded_batch()
    assert half.apply(model).rewritten > 0
    assert packing.close(graphs.run(model, feeds), graphs.run(before, feeds), tolerance=0.005)


@pytest.mark.parametrize("what", EVERY)
def test_everything_up_to_the_last_normalisation_reads_float16_and_nothing_behind_it(
    what: str, plain_graph: packing.Graph
) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packing.pack(model)
    halved = half.apply(model).rewritten
    values = constants(model)
    above = GraphView(model).ancestors(half.last_norms(GraphView(model)))
    inside = [node for node in model.graph.node if node.output[0] in above]
    behind = [node for node in model.graph.node if node.output[0] not in above]
    assert _types(inside, values) == {np.dtype(np.float16)}
    assert _types(behind, values) == {np.dtype(np.float32)}
    # Its last normalisation is the only tensor that leaves it, through one Cast.
    casts = [node for node in behind if node.op_type == "Cast" and node.input[0] in above]
    assert [attribute(node, "to", 0) for node in casts] == [TensorProto.FLOAT]
    # Attentions, normalisations, Gelus and products: all of them.
    kinds = ("PackedMultiHeadAttention", "MatMul", "BiasGelu", *half.NORMS)
    assert halved >= sum(node.op_type in kinds for node in inside) >= 2 * (1 + 6 + 1 + 2)


@pytest.mark.parametrize("what", ["bert", "mean"])
def test_inputs_and_outputs_keep_their_types(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packing.pack(model)
    before = packing.copy(model)
    half.apply(model)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_weights_take_half_the_bytes(plain_graph: packing.Graph) -> None:
    model = plain_graph("cls")  # no head
    packing.fuse(model)
    packing.pack(model)
    before = sum(value.nbytes for value in constants(model).values())
    half.apply(model)
    assert sum(value.nbytes for value in constants(model).values()) < 0.51 * before


def test_mean_is_taken_in_float32(plain_graph: packing.Graph) -> None:
    model = plain_graph("mean")
    packing.fuse(model)
    packing.pack(model)
    half.apply(model)
    product = [node for node in model.graph.node if node.op_type == "MatMul"][-1]
    members, hidden = (GraphView(model).producers[name] for name in product.input)
    for node in (members, hidden):
        assert (node.op_type, attribute(node, "to", 0)) == ("Cast", TensorProto.FLOAT)


def test_weight_that_both_sides_read_exists_in_both_types() -> None:
    model = encoder()
    x = helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, x)
    model.graph.node[1].input[0] = "floats"
    expected = graphs.run(model, batch())
    half.apply(model)
    types = {name: value.dtype for name, value in constants(model).items()}
    wide = {"w": np.float32, "shift": np.float32}
    assert types == wide | {f"{name}/half": np.float16 for name in ("w", "shift", "gamma", "beta")}
    result = graphs.run(model, batch())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=0.05)


def test_hidden_state_that_is_the_result_is_given_in_float32() -> None:
    n = helper.make_node
    model = encoder(n("Identity", ["hidden"], ["copied"]), n("LayerNormalization", ["copied", "gamma", "beta"], ["y"]))
    model.graph.node.insert(0, n("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    expected = graphs.run(model, batch())
    half.apply(model)
    assert graphs.kinds(model)[-1] == "Cast"
    result = graphs.run(model, batch())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=0.05)


def test_shape_that_both_sides_read_stays_what_it_is() -> None:
    n = helper.make_node
    model = encoder(
        n("Shape", ["b"], ["shape"]),
        n("Reshape", ["hidden", "shape"], ["same"]),
        n("LayerNormalization", ["same", "gamma", "beta"], ["last"]),
        n("Reshape", ["last", "shape"], ["y"]),
    )
    model.graph.node.insert(0, n("Cast", ["x"], ["floats"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"
    assert half.apply(model).rewritten == 6  # all above the last normalisation but the shape
    assert list(model.graph.node[-1].input) == ["last/float", "shape"]
    graphs.run(model, batch())


@pytest.mark.parametrize("value", [LARGEST * 1.01, -1e6, np.inf, np.nan])
def test_weight_that_float16_cannot_hold_is_refused_with_its_name(value: float) -> None:
    shift = np.zeros(HIDDEN, np.float32)
    shift[3] = value
    with pytest.raises(half.OutOfRange, match=r"^shift has a weight of \S+; float16 ends at 65504$"):
        half.apply(encoder(shift=shift))


def test_single_number_that_is_no_mask_is_refused_too() -> None:
    with pytest.raises(half.OutOfRange, match=r"^shift has a weight of 1e\+06; float16 ends at 65504$"):
        half.apply(encoder(shift=np.array(-1e6, np.float32)))


def test_largest_weight_is_accepted() -> None:
    model = encoder(shift=np.full(HIDDEN, LARGEST, np.float32))
    half.apply(model)
    np.testing.assert_array_equal(constants(model)["shift/half"], np.full(HIDDEN, LARGEST, np.float16))


def test_weight_of_the_head_may_be_as_large_as_it_is() -> None:
    n = helper.make_node
    model = encoder(n("Mul", ["hidden", "large"], ["y"]), large=np.full(HIDDEN, 1e6, np.float32))
    half.apply(model)
    assert constants(model)["large"].dtype == np.float32


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize(
    ("value", "expected"), [(-3.4e38, -LARGEST), (-np.inf, -LARGEST), (np.finfo(np.float32).max, LARGEST)]
)
def test_number_that_masks_becomes_the_last_one_there_is(shape: Sequence[int], value: float, expected: float) -> None:
    model = encoder(shift=np.full(shape, value, np.float32))
    half.apply(model)
    made = constants(model)["shift/half"]
    assert (str(made.dtype), made.shape, float(made.reshape(()))) == ("float16", shape, expected)


def test_graph_without_normalisations_is_left_alone_with_a_reason() -> None:
    model = graphs.toy([helper.make_node("Relu", ["x"], ["y"])], {}, 3)
    before = model.SerializeToString()
    report = half.apply(model)
    assert (report.rewritten, report.reason) == (0, "the graph has no normalisation")
    assert model.SerializeToString() == before


def test_last_normalisations_are_those_behind_which_there_is_no_other() -> None:
    n = helper.make_node
    model = encoder(
        n("LayerNormalization", ["hidden", "gamma", "beta"], ["one"]),
        n("LayerNormalization", ["b", "gamma", "beta"], ["two"]),
        n("Add", ["one", "two"], ["y"]),
    )
    assert half.last_norms(GraphView(model)) == ["one", "two"]


def _types(nodes: Sequence[NodeProto], values: dict[str, npt.NDArray[np.generic]]) -> set[np.dtype[np.generic]]:
    """Types of the constants that are no shapes or axes."""
    read = [values[name] for node in nodes for name in node.input if name in values]
    return {value.dtype for value in read if np.issubdtype(value.dtype, np.floating)}
