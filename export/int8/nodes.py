"""Int8 products as nodes of a graph, in place of float32 ones.

    plain        QuantizeLinear(x * factors - centre), MatMulIntegerToFloat with the bias
    by token     r = ReduceMax(Abs(x)); QuantizeLinear(x / r), MatMulIntegerToFloat, times r, plus the bias
    apart        a Slice or Gather of x, a float32 MatMul, added to the int8 product
    dynamic      DynamicQuantizeLinear, MatMulIntegerToFloat with the bias

A token of zeros has r = 0 and codes of no meaning; its product is finite, so that times r it is 0.

Source: com.microsoft.MatMulIntegerToFloat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pairwire.server.runtime.base import Float32Array

from ..passes.sequence_major import MICROSOFT
from ..passes.view import add_constant, remove_dead, require_domain, sort_nodes
from .coding import Coding, side_by_side
from .products import Indices, Product
from .rounding import Int8Array, quantize_weights

Rounded = tuple[Int8Array, Float32Array, Float32Array]
"""Weights [inputs, outputs], their scales [outputs], and the bias [outputs] with what rounding does on average."""


class Int8Nodes:
    """Replaces products of one model by their int8 form."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._nodes: list[NodeProto] = []
        self._gone: set[str] = set()

    def static(self, source: str, coding: Coding, products: Sequence[Product], rounded: Sequence[Rounded]) -> None:
        """Replaces all products of one tensor by such with its constant code."""
        self._codes(source, coding)
        for product, (small, scales, bias) in zip(products, rounded, strict=True):
            result = f"{product.result}/main" if len(coding.apart) else product.result
            if coding.by_token:
                self._product(product, small, scales, None, f"{result}/even")
                self._uneven(product, bias, result)
            else:
                self._product(product, small, scales, bias, result)
            if len(coding.apart):
                self._beside(product, coding.apart, result)

    def dynamic(self, source: str, products: Sequence[Product]) -> None:
        """Replaces all products of one tensor by such that take its range from the batch."""
        self._node("DynamicQuantizeLinear", [source], [f"{source}/q", f"{source}/scale", f"{source}/zero"])
        for product in products:
            self._product(product, *quantize_weights(product.weights), product.bias, product.result)

    def finish(self) -> None:
        """Puts the new nodes into the graph."""
        graph = self._model.graph
        for node in [node for node in graph.node if node.output[0] in self._gone]:
            graph.node.remove(node)
        graph.node.extend(self._nodes)
        require_domain(self._model, MICROSOFT)
        sort_nodes(self._model)
        remove_dead(self._model)

    def _codes(self, source: str, coding: Coding) -> None:
        self._constant(f"{source}/scale", coding.scale)
        self._constant(f"{source}/zero", coding.zero)
        even = self._even(source, self._balanced(source, coding)) if coding.by_token else self._balanced(source, coding)
        self._node("QuantizeLinear", [even, f"{source}/scale", f"{source}/zero"], [f"{source}/q"])

    def _balanced(self, source: str, coding: Coding) -> str:
        """(x - centre) / divisors as x * factors + shift: a second LayerNormalization would take longer."""
        name = source
        divisors = np.float32(1) if coding.divisors is None else coding.divisors
        if coding.divisors is not None:
            factors = self._constant(f"{source}/factors", 1 / divisors)
            name = self._node("Mul", [name, factors], [f"{source}/balanced"])
        if coding.centre is not None:
            shift = self._constant(f"{source}/shift", -coding.centre / divisors)
            name = self._node("Add", [name, shift], [f"{source}/centred"])
        return name

    def _even(self, source: str, name: str) -> str:
        """Each token divided by its largest value, which is kept for its products."""
        axis = self._constant(f"{source}/channels", np.asarray([-1], dtype=np.int64))
        sizes = self._node("Abs", [name], [f"{source}/sizes"])
        largest = self._node("ReduceMax", [sizes, axis], [_largest(source)], keepdims=1)
        inverse = self._node("Reciprocal", [largest], [f"{source}/inverse"])
        return self._node("Mul", [name, inverse], [f"{source}/even"])

    def _uneven(self, product: Product, bias: Float32Array, result: str) -> None:
        """Takes the division of tokens back, and adds the bias: where Gelu reads it, ONNX Runtime fuses that."""
        scaled = self._node("Mul", [f"{result}/even", _largest(product.source)], [f"{result}/scaled"])
        self._node("Add", [scaled, self._constant(f"{product.name}/bias", bias)], [result])

    def _product(
        self, product: Product, small: Int8Array, scales: Float32Array, bias: Float32Array | None, result: str
    ) -> None:
        name, source = product.name, product.source
        add_constant(self._model, f"{name}/int8", small)
        self._constant(f"{name}/scales", scales)
        inputs = [f"{source}/q", f"{name}/int8", f"{source}/scale", f"{name}/scales", f"{source}/zero"]
        if bias is not None:
            inputs += ["", self._constant(f"{name}/bias", bias)]
        self._node("MatMulIntegerToFloat", inputs, [result], domain=MICROSOFT)
        self._gone |= {product.name, product.result}

    def _beside(self, product: Product, apart: Indices, main: str) -> None:
        """The float32 product of the channels that are set apart, added to the int8 one."""
        name = product.name
        channels = self._channels(product, apart)
        weights = self._constant(f"{name}/apart/weights", product.weights[apart])
        beside = self._node("MatMul", [channels, weights], [f"{name}/apart"])
        self._node("Add", [main, beside], [product.result])

    def _channels(self, product: Product, apart: Indices) -> str:
        name, result = product.name, f"{product.name}/apart/channels"
        if not side_by_side(apart):
            index = self._constant(f"{name}/apart/index", apart)
            return self._node("Gather", [product.source, index], [result], axis=-1)
        bounds = {"from": apart[0], "to": apart[-1] + 1, "axis": -1}
        names = [self._constant(f"{name}/apart/{key}", np.asarray([at], np.int64)) for key, at in bounds.items()]
        return self._node("Slice", [product.source, *names], [result])

    def _constant(self, name: str, value: np.generic | np.ndarray[Any, Any]) -> str:
        array = np.asarray(value)
        return add_constant(self._model, name, array.astype(np.float32) if array.dtype == np.float64 else array)

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: int
    ) -> str:
        node = helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}/{kind}", domain=domain)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)
        return outputs[0]


def _largest(source: str) -> str:
    """The tensor [..., 1] of what each token was divided by."""
    return f"{source}/largest"
