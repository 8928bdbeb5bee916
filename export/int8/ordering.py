"""Puts the largest channels of a hidden layer last, so that those that are set apart are one slice of it.

A feed-forward block multiplies, changes each value by itself, and multiplies again. Its hidden channels may stand in
any order, if the columns of the first weights and the rows of the second stand in the same one: exact but for the order
in which the second product adds up. Cutting a slice off a token takes a tenth of the time of picking channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from ..passes.view import GraphView, add_constant
from .calibrate import Seen
from .products import Indices, Product

_BY_ITSELF = frozenset(
    "Abs Add Clip Div Erf Exp Gelu Mul Neg Pow Relu Sigmoid Softplus Sqrt Sub Tanh".split()  # noqa: SIM905
)
"""Operators that change each value by itself."""


@dataclass(frozen=True, slots=True)
class Order:
    """How the channels of a hidden layer are put."""

    source: str
    """The tensor that is multiplied."""
    makers: frozenset[str]
    """Names of the products that it is made from."""
    order: Indices
    """[channels] the channel that comes first, and so on."""

    def products(self, products: Sequence[Product]) -> list[Product]:
        """The products with weights and biases in that order."""
        return [self._product(product) for product in products]

    def seen(self, seen: Mapping[str, Seen]) -> dict[str, Seen]:
        """The observed tensors, this one in that order."""
        return {**seen, self.source: seen[self.source].ordered(self.order)}

    def _product(self, product: Product) -> Product:
        if product.name in self.makers:
            product = replace(product, columns=self.order)
        return replace(product, rows=self.order) if product.source == self.source else product


def find_orders(model: ModelProto, products: Sequence[Product], seen: Mapping[str, Seen]) -> list[Order]:
    """An order for each hidden layer that is wider than what it is multiplied into."""
    view = GraphView(model)
    results = {product.result: product for product in products}
    orders = []
    for source in dict.fromkeys(product.source for product in products):
        readers = [product for product in products if product.source == source]
        inputs, outputs = readers[0].inputs, sum(product.outputs for product in readers)
        makers = _makers(view, source, readers, results) if inputs > outputs else None
        if makers and all(maker.outputs == inputs for maker in makers):
            order = np.argsort(seen[source].largest, kind="stable")
            orders.append(Order(source, frozenset(maker.name for maker in makers), order))
    return orders


def reorder(
    model: ModelProto, products: Sequence[Product], orders: Sequence[Order], replaced: Collection[str] = ()
) -> list[Product]:
    """Puts the weights of a model in order, in place; returns its products as they are then.

    Products with a name in ``replaced`` will leave the graph: their weights there stay as they are.
    """
    after = list(products)
    for order in orders:
        after = order.products(after)
    for product in after:
        if product.name not in replaced:
            _write(model, product)
    return after


def _write(model: ModelProto, product: Product) -> None:
    """Gives the graph the weights and the bias of a product in their order."""
    if product.rows is not None or product.columns is not None:
        product.node.input[1] = add_constant(model, f"{product.name}/ordered", product.weights)
    if product.add is not None and product.bias is not None and product.columns is not None:
        at = list(product.add.input).index(product.name)
        product.add.input[1 - at] = add_constant(model, f"{product.name}/ordered/bias", product.bias)


def _makers(
    view: GraphView, source: str, readers: Sequence[Product], results: Mapping[str, Product]
) -> list[Product] | None:
    """The products that a tensor is made from value by value; None where anything else makes or reads its parts."""
    makers: dict[str, Product] = {}
    todo = [source]
    inside: list[str] = []
    while todo:
        name = todo.pop()
        if name in inside:
            continue
        inside.append(name)
        if name in results:
            makers[name] = results[name]
            continue
        node = view.producers.get(name)
        if node is None or node.op_type not in _BY_ITSELF:
            return None
        for operand in filter(None, node.input):
            constant = view.constant(operand)
            if constant is None:
                todo.append(operand)
            elif constant.size != 1:
                return None
    allowed = {product.name for product in readers} | set(inside) - set(makers)
    read = {out for name in inside for node in view.consumers.get(name, []) for out in node.output}
    return None if read - allowed or view.outputs & set(inside) else list(makers.values())
