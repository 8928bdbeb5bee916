"""Hand-made profiles: what each node took of its own, and repeats at their fastest."""

from typing import Any

import pytest

from pairwire.server.profiling.events import fastest, kernels_of_runs


def node(name: str, operator: str, ts: int, dur: int, **args: object) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": operator, **args}}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def microseconds(events: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [{kernel.node: round(kernel.seconds * 1e6) for kernel in run} for run in kernels_of_runs(events)]


def test_what_is_inside_an_if_is_counted_once() -> None:
    events = [
        run(100, 1000),
        node("before", "Add", 110, 40),
        # As ONNX Runtime does: the nodes inside are told before the operator around them.
        node("inside/a", "MatMul", 160, 300),
        node("inside/b", "Softmax", 470, 100),
        node("if", "If", 150, 450),
        node("after", "Add", 600, 30),
    ]
    assert microseconds(events) == [{"before": 40, "if": 50, "inside/a": 300, "inside/b": 100, "after": 30}]


def test_an_if_in_an_if_gives_its_time_to_the_outer_one_once() -> None:
    events = [run(0, 1000), node("leaf", "Add", 30, 50), node("inner", "If", 20, 70), node("outer", "If", 10, 100)]
    assert microseconds(events) == [{"outer": 30, "inner": 20, "leaf": 50}]


def test_nodes_that_begin_with_an_if_or_when_it_ends_are_told_apart() -> None:
    events = [run(0, 100), node("next", "Add", 30, 5), node("first", "Add", 10, 20), node("if", "If", 10, 20)]
    assert microseconds(events) == [{"if": 0, "first": 20, "next": 5}]


def test_rounding_never_makes_a_time_negative() -> None:
    events = [run(0, 100), node("if", "If", 10, 20), node("a", "Add", 10, 11), node("b", "Add", 21, 10)]
    assert microseconds(events) == [{"if": 0, "a": 11, "b": 10}]


def test_events_go_to_the_run_in_which_they_began() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 90, "args": {}},
        node("a", "Add", 210, 7),
        node("a", "Add", 110, 5),
        run(200, 50),
        run(100, 50),
        {"cat": "Node", "name": "a_fence_before", "ts": 105, "dur": 1, "args": {"op_name": "Add"}},
    ]
    assert microseconds(events) == [{"a": 5}, {"a": 7}]


def test_shapes_and_bytes_are_read() -> None:
    shapes = {
        "input_type_shape": [{"float": [2, 3]}, {"int64": []}],
        "output_type_shape": [{"float": [2, 4]}],
        "activation_size": "24",
        "output_size": "32",
    }
    ((kernel,),) = kernels_of_runs([run(0, 10), node("a", "MatMul", 1, 2, **shapes)])
    assert (kernel.inputs, kernel.outputs, kernel.bytes) == (((2, 3), ()), ((2, 4),), 56)


def test_each_kernel_is_taken_at_its_fastest() -> None:
    events = [
        run(0, 50),
        node("a", "Add", 1, 10),
        node("b", "Mul", 20, 3),
        run(100, 50),
        node("a", "Add", 101, 4),
        node("b", "Mul", 120, 9),
    ]
    assert [round(kernel.seconds * 1e6) for kernel in fastest(kernels_of_runs(events))] == [4, 3]


def test_unlike_runs_are_no_repeats() -> None:
    events = [run(0, 50), node("a", "Add", 1, 10), run(100, 50), node("b", "Add", 101, 4)]
    with pytest.raises(ValueError, match="2 runs are not repeats of one"):
        fastest(kernels_of_runs(events))
    with pytest.raises(ValueError, match="0 runs"):
        fastest([])
