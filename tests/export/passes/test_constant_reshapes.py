from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from pairwire.export.passes import constant_reshapes
from tests import graphs
from tests.checkpoints import ARCHITECTURES


def dynamic_split() -> ModelProto:
    """[rows, length, 8] -> [rows, length, 2, 4] with a shape that is computed from the input's."""
    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["shape"]),
        n("Slice", ["shape", "zero", "two"], ["head"]),
        n("Concat", ["head", "tail"], ["target"], axis=0),
        n("Reshape", ["x", "target"], ["y"], name="split"),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "tail": np.array([2, 4])}
    return graphs.toy(nodes, constants, 4)


def test_computed_shape_becomes_a_constant() -> None:
    model = dynamic_split()
    report = constant_reshapes.apply(model)
    assert (report.name, report.rewritten, report.reason) == ("constant_reshapes", 1, "")
    assert graphs.kinds(model) == ["Reshape"]


@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 5, 8), (2, 7, 8)])
def test_rewritten_reshape_gives_the_same_for_every_batch(shape: tuple[int, ...]) -> None:
    model = dynamic_split()
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before = graphs.run(model, {"x": x})
    constant_reshapes.apply(model)
    np.testing.assert_array_equal(graphs.run(model, {"x": x}), before)


def test_constant_shape_is_left_alone() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = graphs.toy(nodes, {"shape": np.array([0, 0, 2, 4])}, 4)
    before = model.SerializeToString()
    assert constant_reshapes.apply(model).rewritten == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mean", "cls"])
def test_every_reshape_of_an_exported_model_becomes_constant(
    architecture: str, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(architecture)
    batch = graphs.padded_batch()
    before = graphs.run(model, batch)
    report = constant_reshapes.apply(model)
    if architecture.startswith("deberta"):  # joins rows and heads to one axis before the length: two unknown dims
        assert report.rewritten == 0
        assert report.reason.startswith("no constant says the shape of ")
    elif architecture.startswith("modernbert"):  # queries, keys and values are split together
        assert (report.rewritten, report.reason) == (3, "")
    else:
        assert report.rewritten >= 6  # four in an attention, less what ONNX Runtime has folded
        assert report.reason == ""
    np.testing.assert_array_equal(graphs.run(model, batch), before)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (("b", "s", 8), ("b", "s", 2, 4), [0, 0, 2, 4]),
        (("b", "s", 2, 4), ("b", "s", 8), [0, 0, 8]),
        (("b", "s", 8), ("b*s", 8), [-1, 8]),
        (("b", "s"), ("b", 1, 1, "s"), [0, 1, 1, -1]),
        (("b", "s"), ("s", "b"), None),
        (None, ("b", 8), None),
        (("b", 8), None, None),
    ],
)
def test_shape_is_written_with_copies_and_at_most_one_rest(
    source: tuple[int | str, ...] | None, target: tuple[int | str, ...] | None, expected: list[int] | None
) -> None:
    assert constant_reshapes.constant_shape(source, target) == expected


def gate(*, axis: int) -> ModelProto:
    """The first half of [rows, length, 8] along an axis, where that ends being computed from its shape."""
    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["shape"]),
        n("Gather", ["shape", "axis"], ["dim"]),
        n("Div", ["dim", "two"], ["half"]),
        n("Slice", ["x", "zero", "half", "axis"], ["y"]),
    ]
    return graphs.toy(nodes, {"zero": np.array([0]), "two": np.array([2]), "axis": np.array([axis])}, 3)


@pytest.mark.parametrize(("axis", "left"), [(2, ["Div", "Slice"]), (1, ["Shape", "Gather", "Div", "Slice"])])
def test_dim_that_is_taken_from_a_shape_becomes_a_number_where_it_is_known(axis: int, left: list[str]) -> None:
    model = gate(axis=axis)
    feeds = [{"x": np.random.default_rng(0).normal(size=(2, n, 8)).astype(np.float32)} for n in (2, 6)]
    expected = [graphs.run(model, feed) for feed in feeds]
    report = constant_reshapes.apply(model)
    assert (report.rewritten, report.reason) == (0, "no shape is computed")
    assert graphs.kinds(model) == left
    for feed, result in zip(feeds, expected, strict=True):
        np.testing.assert_array_equal(graphs.run(model, feed), result)
