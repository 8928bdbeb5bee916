"""Matrix products with constant weights, as they stand in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from pairwire.server.runtime.base import Float32Array

from ..passes.view import GraphView

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Product:
    """A MatMul with constant weights and the bias that is added to it."""

    node: NodeProto
    stored: Float32Array
    """[inputs, outputs] as they stand in the graph; of a large one a view of a file."""
    stored_bias: Float32Array | None
    add: NodeProto | None
    """The Add of the bias."""
    rows: Indices | None = None
    """The order that inputs are put into; None for the one in the graph."""
    columns: Indices | None = None
    """The same of the outputs."""

    @property
    def weights(self) -> Float32Array:
        """[inputs, outputs] in their order; made when asked for, so that a large model is never held twice."""
        weights = self.stored if self.columns is None else self.stored[:, self.columns]
        return weights if self.rows is None else weights[self.rows]

    @property
    def bias(self) -> Float32Array | None:
        """[outputs] in their order."""
        bias = self.stored_bias
        return bias if bias is None or self.columns is None else bias[self.columns]

    @property
    def inputs(self) -> int:
        """Numbers that a token is multiplied with."""
        return int(self.stored.shape[0])

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return int(self.stored.shape[1])

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
