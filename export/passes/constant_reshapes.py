"""Writes the shape of a Reshape down where it is known, instead of computing it at every run.

    before   Shape -> Gather -> Unsqueeze -> Concat -> Reshape(x, shape)        after   Reshape(x, [0, 0, 12, 32])

0 copies a dim of the input and -1 (at most once) stands for what is left, so the result is the same for every batch.
Small batches gain most: a layer loses about ten nodes that compute a handful of integers.

Where a single dim is taken from a shape and is the same for every batch (half of it is where a feed-forward with a gate
is split), it becomes a number too. What reads it then no longer depends on the tensor, which `prune_last_layer` needs.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from pairwire.v1 import manifest_pb2

from .view import Dims, GraphView, add_constant, attribute, remove_dead

NAME = "constant_reshapes"


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts Reshape nodes."""
    view = GraphView(model)
    if _write_known_dims(model, view):
        view = GraphView(model)
    rewritten, left = 0, []
    for node in model.graph.node:
        if node.op_type != "Reshape" or view.is_constant(node.input[1]) or attribute(node, "allowzero", 0):
            continue
        shape = constant_shape(view.dims(node.input[0]), view.dims(node.output[0]))
        if shape is None:
            left.append(node.name)
            continue
        node.input[1] = add_constant(model, f"{node.output[0]}/shape", np.array(shape, dtype=np.int64))
        rewritten += 1
    remove_dead(model)
    reason = f"no constant says the shape of {len(left)} others, {left[0]} the first" if left else ""
    if not rewritten and not left:
        reason = "no shape is computed"
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


def _write_known_dims(model: ModelProto, view: GraphView) -> int:
    """Gather(Shape(x), index) -> a constant, where that dim of x is a number; returns how many there are."""
    written = 0
    for node in list(model.graph.node):
        index = view.constant(node.input[1]) if node.op_type == "Gather" else None
        dims = _dims_in(view, node.output[0]) if index is not None and index.size == 1 else None
        # A dim of 1 is an axis that is expanded: nothing would be gained, and shape inference follows it where it is.
        known = dims is not None and isinstance(dims[0], int) and dims[0] > 1 and node.output[0] not in view.outputs
        if index is not None and dims is not None and known:
            number = np.full(index.shape, dims[0], dtype=np.int64)
            # Not `add_constant`, which gives a single number an axis.
            model.graph.initializer.append(numpy_helper.from_array(number, node.output[0]))
            model.graph.node.remove(node)
            written += 1
    return written


def _dims_in(view: GraphView, name: str) -> Dims | None:
    """The dims that a tensor of integers holds: a Shape, or some of its numbers; None for any other."""
    node = view.producers.get(name)
    if node is None:
        return None
    if node.op_type == "Shape":
        whole = not attribute(node, "start", 0) and attribute(node, "end", None) is None
        return view.dims(node.input[0]) if whole else None
    index = view.constant(node.input[1]) if node.op_type == "Gather" and not attribute(node, "axis", 0) else None
    dims = _dims_in(view, node.input[0]) if index is not None else None
    return None if dims is None or index is None else tuple(dims[int(at)] for at in index.reshape(-1))


def constant_shape(source: Dims | None, target: Dims | None) -> list[int] | None:
    """The second input of a Reshape from dims ``source`` to dims ``target``; None where no constant says it."""
    if source is None or target is None:
        return None
    shape = []
    for at, dim in enumerate(target):
        if isinstance(dim, int):
            shape.append(dim)
        elif at < len(source) and source[at] == dim:
            shape.append(0)
        else:
            shape.append(-1)
    return shape if shape.count(-1) <= 1 else None
