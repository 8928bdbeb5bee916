"""PackedMultiHeadAttention in operators that a CPU has, so that a packed graph can be checked without a GPU.

    before   PackedMultiHeadAttention(q, k, v, biases, token_offset, cumulative_lengths)
    after    rows padded as token_offset says -> MultiHeadAttention with a mask of lengths -> padding taken out again

The first numbers of token_offset are where the tokens go in the padded rows, as the operator's specification has it.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.server.runtime.packed import CUMULATIVE_LENGTHS, TOKEN_OFFSET

from .pooling import ATTENTION
from .sequence_major import MICROSOFT
from .view import GraphView, add_constant, attribute, remove_dead, sort_nodes


def apply(model: ModelProto) -> None:
    """Rewrites the model in place. It is for checking, not for speed.

    Raises:
        ValueError: an attention has no biases.
    """
    view = GraphView(model)
    packed = [node for node in model.graph.node if node.op_type == ATTENTION]
    if not packed:
        return
    _add_common(model)
    for node in packed:
        bias = view.constant(node.input[3])
        if bias is None:
            raise ValueError(f"{node.name} has no biases, from which its width would be known")
        _expand(model, node, len(bias) // 3)
    sort_nodes(model)
    remove_dead(model)


_OFFSETS, _LENGTHS, _SIZE, _SHAPE = "unpacked/offsets", "unpacked/lengths", "unpacked/size", "unpacked/shape"


def _add_common(model: ModelProto) -> None:
    """What all attentions of a graph share."""
    zero = add_constant(model, "unpacked/0", np.array([0], dtype=np.int64))
    one = add_constant(model, "unpacked/1", np.array([1], dtype=np.int64))
    last = add_constant(model, "unpacked/-1", np.array([-1], dtype=np.int64))
    most = add_constant(model, "unpacked/most", np.array([2**31], dtype=np.int64))
    make = helper.make_node
    model.graph.node.extend(
        [
            make("Slice", [CUMULATIVE_LENGTHS, zero, last, zero], ["unpacked/begins"]),
            make("Slice", [CUMULATIVE_LENGTHS, one, most, zero], ["unpacked/ends"]),
            make("Sub", ["unpacked/ends", "unpacked/begins"], ["unpacked/every_length"]),
            # Empty rows at the beginning, of which a shape may have hundreds, are left out.
            make("Sign", ["unpacked/every_length"], ["unpacked/filled"]),
            make("ArgMax", ["unpacked/filled"], ["unpacked/first"], axis=0, keepdims=1),
            make("Slice", ["unpacked/every_length", "unpacked/first", most, zero], [_LENGTHS]),
            make("Shape", [TOKEN_OFFSET], ["unpacked/every_shape"]),
            make("Concat", ["unpacked/first", zero], ["unpacked/left_out"], axis=0),
            make("Sub", ["unpacked/every_shape", "unpacked/left_out"], [_SHAPE]),
            make("ReduceProd", [_SHAPE], [_SIZE], keepdims=1),
            make("Reshape", [TOKEN_OFFSET, last], ["unpacked/all"]),
            make("Shape", ["input_ids"], ["unpacked/tokens"]),
            make("Slice", ["unpacked/all", zero, "unpacked/tokens", zero], ["unpacked/narrow"]),
            make("Cast", ["unpacked/narrow"], ["unpacked/wide"], to=TensorProto.INT64),
            make("Gather", ["unpacked/every_shape", one], ["unpacked/length"], axis=0),
            make("Mul", ["unpacked/first", "unpacked/length"], ["unpacked/before"]),
            make("Sub", ["unpacked/wide", "unpacked/before"], ["unpacked/places"]),
            make("Unsqueeze", ["unpacked/places", one], [_OFFSETS]),
        ]
    )


def _expand(model: ModelProto, node: NodeProto, hidden: int) -> None:
    result = node.output[0]
    width = add_constant(model, f"{result}/width", np.array([hidden], dtype=np.int64))
    make = helper.make_node
    kind = next((t.data_type for t in model.graph.initializer if t.name == node.input[3]), TensorProto.FLOAT)
    empty = helper.make_tensor("empty", kind, [1], [0])
    nodes = [
        make("Concat", [_SIZE, width], [f"{result}/flat"], axis=0),
        make("Concat", [_SHAPE, width], [f"{result}/padded"], axis=0),
        make("ConstantOfShape", [f"{result}/flat"], [f"{result}/empty"], value=empty),
    ]
    parts = []
    for name, source in zip(("query", "key", "value"), node.input[:3], strict=True):
        part = f"{result}/{name}"
        nodes.append(make("ScatterND", [f"{result}/empty", _OFFSETS, source], [f"{part}/flat"]))
        nodes.append(make("Reshape", [f"{part}/flat", f"{result}/padded"], [part]))
        parts.append(part)
    minus = add_constant(model, f"{result}/minus", np.array([-1], dtype=np.int64))
    nodes += [
        make(
            "MultiHeadAttention",
            [*parts, node.input[3], _LENGTHS],
            [f"{result}/rows"],
            domain=MICROSOFT,
            num_heads=attribute(node, "num_heads", 0),
            scale=attribute(node, "scale", 1.0),
        ),
        make("Concat", [minus, width], [f"{result}/join"], axis=0),
        make("Reshape", [f"{result}/rows", f"{result}/join"], [f"{result}/joined"]),
        make("Squeeze", [_OFFSETS, minus], [f"{result}/index"]),
        make("Gather", [f"{result}/joined", f"{result}/index"], [result], axis=0),
    ]
    model.graph.node.remove(node)
    model.graph.node.extend(nodes)
