"""Matrix products with constant weights, as they stand in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from pairwire.server.runtime.base import Float32Array

from ..passes.view import GraphView


@dataclass(frozen=True, slots=True)
class Product:
    """A MatMul with constant weights and the bias that is added to it."""

    node: NodeProto
    weights: Float32Array
    """[inputs, outputs]"""
    bias: Float32Array | None
    add: NodeProto | None
    """The Add of the bias."""

    @property
    def source(self) -> str:
        """The tensor that is multiplied."""
        return str(self.node.input[0])

    @property
    def name(self) -> str:
        """The product's own output."""
        return str(self.node.output[0])

    @property
    def result(self) -> str:
        """The tensor that comes out, bias included."""
        return str((self.add or self.node).output[0])


def find_products(model: ModelProto) -> list[Product]:
    """Every MatMul with a constant [inputs, outputs] right operand."""
    view = GraphView(model)
    return [
        Product(node, np.asarray(view.constant(node.input[1]), dtype=np.float32), *_bias(view, node))
        for node in model.graph.node
        if node.op_type == "MatMul" and view.is_constant(node.input[1]) and len(view.dims(node.input[1]) or ()) == 2
    ]


def _bias(view: GraphView, node: NodeProto) -> tuple[Float32Array | None, NodeProto | None]:
    readers = view.consumers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in view.outputs:
        return None, None
    other = next((name for name in readers[0].input if name != node.output[0]), "")
    value = view.constant(other)
    if value is None or value.ndim != 1:
        return None, None
    return np.asarray(value, dtype=np.float32), readers[0]
