"""float32 graph -> int8 graph.

Matrix products with constant weights become ONNX Runtime's MatMulIntegerToFloat: activations uint8 with one scale and
zero point a tensor, weights int8 with one scale a column, the bias added inside. The products of attention itself
stay float32.

int8           Ranges are constants, found on calibration texts. A few channels of a transformer are ten times larger
               than the rest and would leave those with a handful of steps. Two exact rewrites take care of them,
               whichever is cheaper where the tensor stands:
                 balance    x -> x / s, W -> s W: large channels shrink, their weights grow (as SmoothQuant does)
                 set apart  up to 8 channels are multiplied in float32 beside the int8 product: x W = x' W' + x[o] W[o]
int8-dynamic   Ranges are taken from each batch by DynamicQuantizeLinear.

Embedding tables of both become int8 with one scale a row: a token's row is looked up and scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.server.runtime.base import Float32Array
from pairwire.v1 import manifest_pb2

from .calibrate import ChannelRange, channel_ranges
from .checkpoint import Checkpoint
from .config import Precision
from .parity import encode
from .passes.view import GraphView, add_constant, attribute, remove_dead, require_domain, sort_nodes
from .texts import Texts

MIGRATION = 0.75
"""Share of a channel's size that goes into the weights: s = size ** 0.75 / weight size ** 0.25."""
MOST_APART = 8
"""Channels of a tensor that may be set apart."""
OUTLIER = 1.5
"""A channel is set apart where it is so many times larger than the largest that would stay."""
SMALLEST_TABLE = 1024
"""Rows from which an embedding table is quantised; smaller ones (positions, token types) are not worth it."""

Int8Array = npt.NDArray[np.int8]


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
    def result(self) -> str:
        """The tensor that comes out, bias included."""
        return str((self.add or self.node).output[0])


def quantize(
    model: ModelProto, precision: Precision, checkpoint: Checkpoint, texts: Texts
) -> tuple[ModelProto, list[manifest_pb2.PassReport]]:
    """A quantised copy of the model, and what was done."""
    copy = ModelProto()
    copy.CopyFrom(model)
    products = find_products(copy)
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.source, []).append(product)
    if precision is Precision.INT8:
        encoder = checkpoint.text_encoder()
        rows = encode(encoder, texts.inputs, checkpoint)
        ranges: Mapping[str, ChannelRange] = channel_ranges(copy, list(groups), encoder, rows)
    else:
        ranges = {}
    writer = _Writer(copy)
    for source, group in groups.items():
        writer.replace(source, group, ranges.get(source))
    writer.finish()
    reports = [manifest_pb2.PassReport(name="quantize_matmul", rewritten=len(products))]
    if precision is Precision.INT8:
        reports.append(manifest_pb2.PassReport(name="balance_channels", rewritten=writer.balanced))
        reports.append(manifest_pb2.PassReport(name="set_channels_apart", rewritten=writer.apart))
    reports.append(manifest_pb2.PassReport(name="quantize_embedding", rewritten=quantize_embeddings(copy)))
    return copy, reports


def find_products(model: ModelProto) -> list[Product]:
    """Every MatMul with a constant [inputs, outputs] right operand."""
    view = GraphView(model)
    return [
        Product(node, np.asarray(view.constant(node.input[1]), dtype=np.float32), *_bias(view, node))
        for node in model.graph.node
        if node.op_type == "MatMul" and view.is_constant(node.input[1]) and len(view.dims(node.input[1]) or ()) == 2
    ]


def quantize_weights(weights: Float32Array) -> tuple[Int8Array, Float32Array]:
    """int8 [inputs, outputs] and float32 scales [outputs], symmetric: weights = int8 * scales, up to half a step."""
    scales = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
    return np.clip(np.round(weights / scales), -127, 127).astype(np.int8), scales.astype(np.float32)


def activation_scale(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that spread uint8 over [low, high], widened so that 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-12) / 255
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, 255))


def balance(largest: Float32Array, weights: Float32Array) -> Float32Array:
    """Divisors [inputs] of the channels, with geometric mean 1; rows of ``weights`` [inputs, outputs] take them."""
    size = np.maximum(largest.astype(np.float64), 1e-4)
    weight = np.maximum(np.abs(weights).max(axis=1).astype(np.float64), 1e-6)
    divisors = size**MIGRATION / weight ** (1 - MIGRATION)
    return np.asarray(divisors / np.exp(np.log(divisors).mean()), dtype=np.float32)


def outliers(largest: Float32Array) -> npt.NDArray[np.int64]:
    """Ascending indices of the channels to set apart: those that are ``OUTLIER`` times larger than what stays."""
    order = np.argsort(-largest, kind="stable")
    sizes = largest[order]
    count = 0
    for at in range(min(MOST_APART, len(sizes) - 1)):
        if sizes[at] > OUTLIER * sizes[at + 1] or sizes[at] > OUTLIER * sizes[min(MOST_APART, len(sizes) - 1)]:
            count = at + 1
    return np.sort(order[:count]).astype(np.int64)


def quantize_embeddings(model: ModelProto) -> int:
    """Makes large embedding tables int8 with a scale a row, in place; returns how many."""
    view = GraphView(model)
    count = 0
    for node in list(model.graph.node):
        table = view.constant(node.input[0]) if node.op_type == "Gather" and not attribute(node, "axis", 0) else None
        if table is None or table.ndim != 2 or len(table) < SMALLEST_TABLE or table.dtype != np.float32:
            continue
        _replace_table(model, node, np.asarray(table, dtype=np.float32))
        count += 1
    sort_nodes(model)
    remove_dead(model)
    return count


def _replace_table(model: ModelProto, node: NodeProto, table: Float32Array) -> None:
    """Gather(table, ids) -> Cast(Gather(int8, ids)) * Gather(scales, ids)."""
    name, ids, result = node.input[0], node.input[1], node.output[0]
    rows, scales = quantize_weights(np.ascontiguousarray(table.T))
    add_constant(model, f"{name}/int8", rows.T)
    add_constant(model, f"{name}/scales", scales[:, None])
    small, wide, scale = f"{result}/int8", f"{result}/float", f"{result}/scale"
    model.graph.node.remove(node)
    model.graph.node.extend(
        [
            helper.make_node("Gather", [f"{name}/int8", ids], [small], name=f"{small}/gather"),
            helper.make_node("Cast", [small], [wide], name=f"{wide}/cast", to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}/scales", ids], [scale], name=f"{scale}/gather"),
            helper.make_node("Mul", [wide, scale], [result], name=f"{result}/mul"),
        ]
    )


def _bias(view: GraphView, node: NodeProto) -> tuple[Float32Array | None, NodeProto | None]:
    readers = view.consumers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in view.outputs:
        return None, None
    other = next((name for name in readers[0].input if name != node.output[0]), "")
    value = view.constant(other)
    if value is None or value.ndim != 1:
        return None, None
    return np.asarray(value, dtype=np.float32), readers[0]


class _Writer:
    """Replaces products by their int8 form."""

    def __init__(self, model: ModelProto) -> None:
        self.balanced = 0
        self.apart = 0
        self._model = model
        self._nodes: list[NodeProto] = []
        self._gone: set[int] = set()

    def replace(self, source: str, group: Sequence[Product], channels: ChannelRange | None) -> None:
        """Replaces all products of one tensor, which share its quantised form."""
        weights = [product.weights for product in group]
        apart = np.zeros(0, dtype=np.int64)
        quantised = source
        if channels is None:
            self._node("DynamicQuantizeLinear", [source], [f"{source}/q", f"{source}/scale", f"{source}/zero"])
        else:
            low, high = channels.low, channels.high
            inputs, outputs = len(channels.low), sum(weight.shape[1] for weight in weights)
            if inputs < outputs:  # scaling the tensor is the cheaper rewrite
                divisors = balance(channels.largest, np.concatenate(weights, axis=1))
                quantised = self._divide(source, divisors)
                low, high = low / divisors, high / divisors
                weights = [weight * divisors[:, None] for weight in weights]
                self.balanced += 1
            elif outputs < inputs:
                apart = outliers(channels.largest)
                low, high = np.delete(low, apart), np.delete(high, apart)
                self.apart += len(apart)
            scale, zero = activation_scale(float(low.min()), float(high.max()))
            add_constant(self._model, f"{source}/scale", np.asarray(scale))
            add_constant(self._model, f"{source}/zero", np.asarray(zero))
            self._node("QuantizeLinear", [quantised, f"{source}/scale", f"{source}/zero"], [f"{source}/q"])
        for product, weight in zip(group, weights, strict=True):
            self._product(product, weight, apart)

    def finish(self) -> None:
        """Puts the new nodes into the graph."""
        graph = self._model.graph
        for node in [node for node in graph.node if id(node) in self._gone]:
            graph.node.remove(node)
        graph.node.extend(self._nodes)
        require_domain(self._model, _MICROSOFT)
        sort_nodes(self._model)
        remove_dead(self._model)

    def _product(self, product: Product, weights: Float32Array, apart: npt.NDArray[np.int64]) -> None:
        name, source = product.node.output[0], product.source
        whole = weights
        if len(apart):
            weights = whole.copy()
            weights[apart] = 0  # what the saturated channels contribute to the int8 product
        small, scales = quantize_weights(weights)
        inputs = [f"{source}/q", f"{name}/int8", f"{source}/scale", f"{name}/scales", f"{source}/zero"]
        add_constant(self._model, f"{name}/int8", small)
        add_constant(self._model, f"{name}/scales", scales)
        if product.bias is not None:
            add_constant(self._model, f"{name}/bias", product.bias)
            inputs += ["", f"{name}/bias"]
        result = f"{product.result}/main" if len(apart) else product.result
        self._node("MatMulIntegerToFloat", inputs, [result], domain=_MICROSOFT)
        if len(apart):
            self._beside(source, name, apart, whole[apart], result, product.result)
        self._gone |= {id(node) for node in (product.node, product.add) if node is not None}

    def _beside(
        self, source: str, name: str, apart: npt.NDArray[np.int64], weights: Float32Array, main: str, result: str
    ) -> None:
        """The float32 product of the channels that are set apart, added to the int8 one."""
        add_constant(self._model, f"{name}/apart/index", apart)
        add_constant(self._model, f"{name}/apart/weights", weights)
        self._node("Gather", [source, f"{name}/apart/index"], [f"{name}/apart/channels"], axis=-1)
        self._node("MatMul", [f"{name}/apart/channels", f"{name}/apart/weights"], [f"{name}/apart"])
        self._node("Add", [main, f"{name}/apart"], [result])

    def _divide(self, source: str, divisors: Float32Array) -> str:
        add_constant(self._model, f"{source}/factors", 1 / divisors)
        self._node("Mul", [source, f"{source}/factors"], [f"{source}/balanced"])
        return f"{source}/balanced"

    def _node(
        self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", axis: int | None = None
    ) -> None:
        node = helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}/{kind}", domain=domain)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._nodes.append(node)


_MICROSOFT = "com.microsoft"
