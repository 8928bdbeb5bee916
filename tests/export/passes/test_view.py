from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper

from pairwire.export.passes import view
from tests import graphs


def chain() -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
        helper.make_node("Mul", ["a", "a"], ["unused"]),
    ]
    return graphs.toy(nodes, {"w": np.ones((8, 4), np.float32), "b": np.ones(4, np.float32), "c": np.ones(1)}, 3)


def test_view_knows_dims_by_number_and_by_name() -> None:
    assert view.GraphView(chain()).dims("a") == ("rows", "length", 4)
    assert view.GraphView(chain()).dims("w") == (8, 4)
    assert view.GraphView(chain()).dims("nothing") is None


def test_view_tells_constants_from_computed_tensors() -> None:
    graph = view.GraphView(chain())
    np.testing.assert_array_equal(graph.constant("b"), np.ones(4, np.float32))
    assert graph.constant("a") is None


def test_ancestors_stop_at_nodes_that_are_cut() -> None:
    graph = view.GraphView(chain())
    assert graph.ancestors(["y"]) == {"y", "a", "b", "x", "w"}
    assert graph.ancestors(["y"], without=[id(graph.producers["a"])]) == {"y", "a", "b"}


def test_what_a_branch_takes_from_outside_is_read_by_its_node() -> None:
    def branch(name: str, source: str) -> object:
        nodes = [helper.make_node("Identity", [source], [f"{name}/0"]), helper.make_node("Neg", [f"{name}/0"], [name])]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, 1, None)])

    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch("then", "a"), else_branch=branch("else", "b"))
    made = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    model = graphs.toy([choice, *made, helper.make_node("Exp", ["x"], ["dead"])], {"c": np.array(True)}, 3)
    assert sorted(view.reads(choice)) == ["a", "b", "c"]
    assert view.GraphView(model).ancestors(["y"]) == {"y", "c", "a", "b", "x"}
    assert [node.op_type for node in view.GraphView(model).consumers["a"]] == ["If"]
    view.sort_nodes(model)
    view.remove_dead(model)
    assert graphs.kinds(model) == ["Abs", "Neg", "If"]
    x = np.ones((1, 2, 8), np.float32)
    np.testing.assert_array_equal(graphs.run(model, {"x": x}), -x)


def test_dead_nodes_and_initializers_are_removed() -> None:
    model = chain()
    view.remove_dead(model)
    assert graphs.kinds(model) == ["MatMul", "Add"]
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "b"}


def test_nodes_are_sorted_by_what_they_need() -> None:
    model = chain()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    view.sort_nodes(model)
    assert graphs.kinds(model)[0] == "MatMul"


def test_cycle_is_an_error() -> None:
    model = chain()
    model.graph.node[0].input[0] = "y"
    with pytest.raises(ValueError, match="cycle"):
        view.sort_nodes(model)
