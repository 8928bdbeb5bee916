from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.export.passes import bias_gelu, constant_reshapes
from tests import graphs, packing
from tests.architectures import FIRST

LAYERS = 2
HIDDEN = 8
NOTHING = (0, "1 of 1 Gelus have another form or no bias")


def gelu(
    *, swapped: bool = False, halved_first: bool = False, multiplied: bool = False, **numbers: float
) -> ModelProto:
    """The Gelu of x + bias; ``numbers`` are root, one and half where they are others."""
    root = numbers.get("root", np.sqrt(0.5) if multiplied else np.sqrt(2))
    constants = {
        "bias": np.random.default_rng(1).normal(size=HIDDEN).astype(np.float32),
        "root": np.array(root, np.float32),
        "one": np.array(numbers.get("one", 1), np.float32),
        "half": np.array(numbers.get("half", 0.5), np.float32),
    }

    def node(kind: str, first: str, second: str, result: str) -> NodeProto:
        swap = swapped and kind in ("Add", "Mul") and second != "root"
        return helper.make_node(kind, [second, first] if swap else [first, second], [result])

    nodes = [
        node("Add", "x", "bias", "biased"),
        node("Mul" if multiplied else "Div", "biased", "root", "scaled"),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        node("Add", "erf", "one", "plus"),
    ]
    if halved_first:
        nodes += [node("Mul", "biased", "half", "halved"), node("Mul", "halved", "plus", "y")]
    else:
        nodes += [node("Mul", "biased", "plus", "times"), node("Mul", "times", "half", "y")]
    return graphs.toy(nodes, constants, 3)


def batch() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {"x": np.random.default_rng(0).normal(size=(2, 3, HIDDEN)).astype(np.float32)}


@pytest.mark.parametrize("what", [*FIRST, "cls", "mean"])
def test_results_stay_the_same_but_for_rounding(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.spread_biases(model)
    constant_reshapes.apply(model)
    before = packing.copy(model)
    report = bias_gelu.apply(model)
    # ELECTRA's head has a Gelu behind a Gemm, which has the bias inside.
    assert report.reason == ("1 of 3 Gelus have another form or no bias" if what == "electra" else "")
    assert (report.name, report.rewritten) == ("bias_gelu", LAYERS)
    assert graphs.kinds(model).count("BiasGelu") == LAYERS
    assert graphs.kinds(model).count("Erf") == (1 if what == "electra" else 0)
    for rows, length in ((6, 24), (1, 24), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        assert packing.close(graphs.run(model, feeds), graphs.run(before, feeds))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("halved_first", [False, True])
@pytest.mark.parametrize("multiplied", [False, True])
def test_every_way_to_write_it_becomes_one_operator(swapped: bool, halved_first: bool, multiplied: bool) -> None:
    model = gelu(swapped=swapped, halved_first=halved_first, multiplied=multiplied)
    expected = graphs.run(model, batch())
    report = bias_gelu.apply(model)
    assert (report.rewritten, report.reason) == (1, "")
    assert graphs.kinds(model) == ["BiasGelu"]
    assert list(model.graph.node[0].input) == ["x", "bias"]
    np.testing.assert_allclose(graphs.run(model, batch()), expected, atol=1e-6)


@pytest.mark.parametrize("halved_first", [False, True])
@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("number", ["root", "one", "half"])
def test_other_numbers_are_another_function(number: str, multiplied: bool, halved_first: bool) -> None:
    # The root of the other form, or any number.
    other = (np.sqrt(2) if multiplied else np.sqrt(0.5)) if number == "root" else 0.75
    _assert_untouched(gelu(multiplied=multiplied, halved_first=halved_first, **{number: float(other)}))


def test_gelu_without_a_bias_is_left_alone() -> None:
    model = gelu()
    model.graph.node[0].CopyFrom(helper.make_node("Abs", ["x"], ["biased"]))
    _assert_untouched(model)


def test_sum_of_two_tensors_is_no_bias() -> None:
    model = gelu()
    model.graph.node[0].input[1] = "x"
    _assert_untouched(model)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("halved_first", [False, True])
def test_factor_that_is_another_tensor_is_left_alone(halved_first: bool, swapped: bool) -> None:
    model = gelu(halved_first=halved_first, swapped=swapped)
    times = next(node for node in model.graph.node if node.op_type == "Mul")
    times.input[:] = ["x" if name == "biased" else name for name in times.input]
    _assert_untouched(model)


@pytest.mark.parametrize("name", ["erf", "plus", "times"])
def test_part_that_somebody_else_reads_is_left_alone(name: str) -> None:
    model = gelu()
    model.graph.node.append(helper.make_node("Abs", [name], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * 3))
    _assert_untouched(model)


def test_biased_product_may_have_other_readers() -> None:
    model = gelu()
    model.graph.node.append(helper.make_node("Abs", ["biased"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * 3))
    expected = graphs.run_all(model, batch())
    assert bias_gelu.apply(model).rewritten == 1
    assert sorted(graphs.kinds(model)) == ["Abs", "Add", "BiasGelu"]
    for result, one in zip(graphs.run_all(model, batch()), expected, strict=True):
        np.testing.assert_allclose(result, one, atol=1e-6)


def test_graph_without_gelus_has_nothing_to_tell() -> None:
    model = graphs.toy([helper.make_node("Tanh", ["x"], ["y"])], {}, 3)
    before = model.SerializeToString()
    report = bias_gelu.apply(model)
    assert (report.rewritten, report.reason) == (0, "")
    assert model.SerializeToString() == before


def _assert_untouched(model: ModelProto) -> None:
    before = model.SerializeToString()
    report = bias_gelu.apply(model)
    assert (report.rewritten, report.reason) == NOTHING
    assert model.SerializeToString() == before
