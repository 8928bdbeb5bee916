"""Writes the shape of a Reshape down where it is known, instead of computing it at every run.

    before   Shape -> Gather -> Unsqueeze -> Concat -> Reshape(x, shape)        after   Reshape(x, [0, 0, 12, 32])

0 copies a dim of the input and -1 (at most once) stands for what is left, so the result is the same for every batch.
Small batches gain most: a layer loses about ten nodes that compute a handful of integers.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from pairwire.v1 import manifest_pb2

from .view import Dims, GraphView, add_constant, attribute, remove_dead

NAME = "constant_reshapes"


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts Reshape nodes."""
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
    reason = f"shape not known before a run: {', '.join(left)}" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


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
