"""Graphs that go wrong on some inputs: they hang, raise, give NaN, or hang so that nothing can end them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_FOR_EVER = 10**13
_SIDE = 2400
"""Of two matrices of whole numbers. Their product takes ONNX Runtime half a minute, and it looks up only afterwards."""


class Fault(Enum):
    """What one token does to the whole batch that it is in; NAN to its own row only."""

    HANG = "~"
    """A loop that never ends; ONNX Runtime can be asked to leave it."""
    RAISE = "^"
    NAN = "`"
    STUBBORN = "|"
    """One operator that takes half a minute; ONNX Runtime cannot be made to leave it."""


def add_faults(model: onnx.ModelProto, ids: Mapping[Fault, int]) -> None:
    """Puts all faults behind the only output of a graph [rows, outputs], in place.

    ``ids``: the token id of each.
    """
    graph = model.graph
    values = graph.output[0].name
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {
        "rows_axis": np.array([1], np.int64),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "whole": np.array(1, np.int64),
        "yes": np.array(True),
        "never": np.array(np.nan, np.float32),
        "for_ever": np.array(_FOR_EVER, np.int64),
        "side": np.array([_SIDE, _SIDE], np.int64),
        "far": np.array([0], np.float32),
    }
    for fault in Fault:
        name = fault.name
        constants[f"{name}_id"] = np.array(ids[fault], np.int64)
        nodes += [
            helper.make_node("Equal", ["input_ids", f"{name}_id"], [f"{name}_found"]),
            helper.make_node("Cast", [f"{name}_found"], [f"{name}_ones"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", [f"{name}_ones"], [f"{name}_count"], keepdims=0),
        ]
    nodes += [
        helper.make_node("Mul", ["HANG_count", "for_ever"], ["trips"]),
        helper.make_node("Loop", ["trips", "yes", "zero"], ["hung"], body=_body()),
        helper.make_node("Gather", ["far", "RAISE_count"], ["raised"]),
        helper.make_node("Sign", ["STUBBORN_count"], ["stubborn_sign"]),
        helper.make_node("Mul", ["side", "stubborn_sign"], ["stubborn_side"]),
        helper.make_node("Expand", ["whole", "stubborn_side"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["stubborn_sum"], keepdims=0),
        helper.make_node("Cast", ["stubborn_sum"], ["stubborn"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["NAN_ones", "rows_axis"], ["nan_rows"], keepdims=1),
        helper.make_node("Cast", ["nan_rows"], ["nan_flags"], to=TensorProto.BOOL),
        helper.make_node("Where", ["nan_flags", "never", "zero"], ["nans"]),
        helper.make_node("Sum", [values, "hung", "raised", "stubborn", "nans"], ["with_faults"]),
    ]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.output[0].name = "with_faults"


def _body() -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["sum_so_far", "one"], ["sum_now"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_so_far", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_now", TensorProto.FLOAT, []),
        ],
    )
