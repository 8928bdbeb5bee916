"""float32 graph -> int8 graph.

Matrix products with constant weights become ONNX Runtime's MatMulIntegerToFloat: activations uint8, weights int8 with
one scale a column (`int8_nodes`). The products of attention itself stay float32.

int8           Ranges are constants, found on calibration texts, or a token's own; `coding` says which, and how large
               channels are dealt with. What rounding does to a product on average goes into its bias.
int8-dynamic   Ranges are taken from each batch by DynamicQuantizeLinear.

Embedding tables of both become int8 with one scale a row: a token's row is looked up and scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.server.errors import ConfigInvalid
from pairwire.server.runtime.base import Float32Array
from pairwire.v1 import manifest_pb2

from ..checkpoint.checkpoint import Checkpoint, encode
from ..config import Precision, Sensitivity
from ..passes.view import GraphView, add_constant, attribute, remove_dead, sort_nodes
from ..progress import Advance, part_of, silent
from ..texts import Texts
from .calibrate import Seen, observe
from .coding import Chosen, Coding, choose, unsearched
from .findings import GPTQ, NEAREST, Findings, LayerFinding, TensorFinding, place_of, worst
from .nodes import Int8Nodes, Rounded
from .ordering import Order, find_orders, reorder
from .products import Product, find_products
from .rounding import quantize_rows, round_weights, takes_back
from .sensitivity import measure_layers, sampled

SMALLEST_TABLE = 1024
"""Rows from which an embedding table is quantised; smaller ones (positions, token types) are not worth it."""
THRIFT = 1.2
"""How much the time of a code counts against its error, in the middle of a model (`coding.choose`). With 1.7 the demo
model errs 7 % more in 4 % less time; with 0.8 it takes 4 % more time and errs no less."""

_NOTHING = Sensitivity()
_OBSERVING = 0.45
"""Share of the time that running the calibration texts takes; the rest is the search for codes."""


@dataclass(frozen=True, slots=True)
class Group:
    """The products of one tensor, which share its code."""

    source: str
    products: Sequence[Product]
    chosen: Chosen
    seen: Seen
    rounded: Sequence[Rounded]
    """Of each product."""

    @property
    def finding(self) -> TensorFinding:
        """What is reported of it."""
        layer, role = place_of([product.name for product in self.products])
        inputs, outputs = self.products[0].inputs, sum(product.outputs for product in self.products)
        coding, sample = self.chosen.coding, self.seen.sample
        return TensorFinding(
            layer=layer or role,
            role=role,
            inputs=inputs,
            outputs=outputs,
            plain=self.chosen.plain,
            error=self.chosen.error,
            exponent=self.chosen.exponent,
            centred=coding.centre is not None,
            by_token=coding.by_token,
            apart=len(coding.apart),
            rounding=GPTQ if takes_back(inputs, sample) else NEAREST,
        )


@dataclass(frozen=True, slots=True)
class Codes:
    """What a model needs to become int8."""

    groups: Sequence[Group]
    orders: Sequence[Order]
    """How hidden channels are put before that; the products of ``groups`` have them so."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised copy of a model, and what was done."""

    model: ModelProto
    reports: list[manifest_pb2.PassReport]
    findings: Findings | None
    """None for dynamic ranges: nothing is searched for those."""


def quantize(
    model: ModelProto,
    precision: Precision,
    checkpoint: Checkpoint,
    texts: Texts,
    asked: Sensitivity = _NOTHING,
    known: Sequence[LayerFinding] = (),
    advance: Advance = silent,
    *,
    search: bool = True,
) -> Quantised:
    """A quantised copy of the model.

    ``known`` is what each layer costs, where that has been measured before. Without ``search`` every tensor gets the
    plain code: the graph can be timed, and is for nothing else.

    Raises:
        ConfigInvalid: ``asked`` leaves no layer in int8.
    """
    if precision is Precision.INT8:
        codes = choose_codes(model, find_products(model), checkpoint, texts, advance, search=search)
        return _quantize_static(model, codes, checkpoint, asked, known)
    copy = ModelProto()
    copy.CopyFrom(model)
    products = find_products(copy)
    nodes = Int8Nodes(copy)
    for source, members in _by_source(products).items():
        nodes.dynamic(source, members)
    nodes.finish()
    reports = [manifest_pb2.PassReport(name="quantize_matmul", rewritten=len(products))]
    reports.append(manifest_pb2.PassReport(name="quantize_embedding", rewritten=quantize_embeddings(copy)))
    return Quantised(copy, reports, None)


def choose_codes(
    model: ModelProto,
    products: Sequence[Product],
    checkpoint: Checkpoint,
    texts: Texts,
    advance: Advance = silent,
    *,
    search: bool = True,
) -> Codes:
    """The code of every tensor that is multiplied, measured on the calibration texts."""
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, texts.inputs, checkpoint)
    sizes = {product.source: product.inputs for product in products}
    # A graph without products (a table alone) has nothing to look at.
    seen = dict(observe(model, sizes, encoder, rows, part_of(advance, 0, _OBSERVING))) if sizes else {}
    products = [product for product in products if product.source in seen]
    orders = find_orders(model, products, seen) if search else []
    for order in orders:  # before any code is chosen: channels that are set apart must stand side by side
        products, seen = order.products(products), order.seen(seen)
    members = _by_source(products)
    groups = []
    for at, (source, group) in enumerate(members.items()):
        # Queries, keys and values read one tensor, which is coded once: the code must suit all of them.
        weights = np.concatenate([product.weights for product in group], axis=1)
        found = seen[source]
        chosen = choose(found, weights, thrift=_thrift(at, len(members))) if search else unsearched(found)
        rounded = _rounded(group, weights, chosen.coding, seen[source].sample)
        groups.append(Group(source, group, chosen, seen[source], rounded))
        advance(_OBSERVING + (1 - _OBSERVING) * (at + 1) / len(members))
    return Codes(groups, orders)


def _thrift(at: int, count: int) -> float:
    """How much the time counts at one tensor of ``count``: what goes wrong early goes through all that follows."""
    return THRIFT / (1.75 - 1.5 * at / count)


def _rounded(products: Sequence[Product], weights: Float32Array, coding: Coding, sample: Float32Array) -> list[Rounded]:
    """Of each product. ``weights`` are those of all, side by side: what the tokens say of rounding is found once."""
    decoded, kept = coding.decoded(sample), np.delete(sample, coding.apart, axis=1)
    small, scales = round_weights(coding.weights(weights), decoded)
    found = []
    start = 0
    for product in products:
        part = slice(start, start + product.outputs)
        own, scale = np.ascontiguousarray(small[:, part]), scales[part]
        # What rounding does on average is no noise: the bias takes it back at no cost.
        expected = kept @ np.delete(product.weights, coding.apart, axis=0)
        shift = (expected - decoded @ (own * scale)).mean(axis=0)
        found.append((own, scale, shift if product.bias is None else product.bias + shift))
        start += product.outputs
    return found


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


def _quantize_static(
    model: ModelProto,
    codes: Codes,
    checkpoint: Checkpoint,
    asked: Sensitivity,
    known: Sequence[LayerFinding],
) -> Quantised:
    tensors = [group.finding for group in codes.groups]
    layers = list(known)
    if codes.groups and not layers and (asked.measure or asked.keep_float):
        layers = _layer_findings(model, codes, checkpoint)
    if asked.keep_float and asked.keep_float >= len(layers):
        raise ConfigInvalid(
            f"keep-float: {asked.keep_float} is too many; {len(layers)} layers were measured, and one must be int8"
        )
    # All products of a layer stay together: layers are what was measured, and what the user counts.
    kept = set(worst(layers, asked.keep_float))
    taken = [group for group, tensor in zip(codes.groups, tensors, strict=True) if tensor.layer not in kept]
    copy = _with_static(model, taken, codes.orders)
    reports = [manifest_pb2.PassReport(name="quantize_matmul", rewritten=sum(len(group.products) for group in taken))]
    reports += _reports(taken)
    reports.append(manifest_pb2.PassReport(name="quantize_embedding", rewritten=quantize_embeddings(copy)))
    findings = Findings(
        [replace(tensor, in_float=tensor.layer in kept) for tensor in tensors],
        [replace(layer, in_float=layer.layer in kept) for layer in layers],
    )
    return Quantised(copy, reports, findings)


def _layer_findings(model: ModelProto, codes: Codes, checkpoint: Checkpoint) -> list[LayerFinding]:
    by_layer: dict[str, list[Group]] = {}
    for group in codes.groups:
        by_layer.setdefault(group.finding.layer, []).append(group)
    names = sampled(by_layer)
    graphs = ((name, _with_static(model, by_layer[name], codes.orders)) for name in names)
    weights = sum(product.stored.size for group in codes.groups for product in group.products)
    return measure_layers(model, checkpoint, graphs, count=len(names), weights=weights)


def _with_static(model: ModelProto, groups: Sequence[Group], orders: Sequence[Order]) -> ModelProto:
    """A copy of the model with the products of those groups quantised."""
    copy = ModelProto()
    copy.CopyFrom(model)
    replaced = {product.name for group in groups for product in group.products}
    found = {product.name: product for product in reorder(copy, find_products(copy), orders, replaced)}
    nodes = Int8Nodes(copy)
    for group in groups:
        products = [found[product.name] for product in group.products]
        nodes.static(group.source, group.chosen.coding, products, group.rounded)
    nodes.finish()
    return copy


def _by_source(products: Sequence[Product]) -> dict[str, list[Product]]:
    groups: dict[str, list[Product]] = {}
    for product in products:
        groups.setdefault(product.source, []).append(product)
    return groups


def _reports(groups: Sequence[Group]) -> list[manifest_pb2.PassReport]:
    codes = [group.chosen.coding for group in groups]
    return [
        manifest_pb2.PassReport(name="balance_channels", rewritten=sum(code.divisors is not None for code in codes)),
        manifest_pb2.PassReport(name="centre_channels", rewritten=sum(code.centre is not None for code in codes)),
        manifest_pb2.PassReport(name="scale_tokens", rewritten=sum(code.by_token for code in codes)),
        manifest_pb2.PassReport(name="set_channels_apart", rewritten=sum(len(code.apart) for code in codes)),
        manifest_pb2.PassReport(name="correct_bias", rewritten=sum(len(group.products) for group in groups)),
    ]


def _replace_table(model: ModelProto, node: NodeProto, table: Float32Array) -> None:
    """Gather(table, ids) -> Cast(Gather(int8, ids)) * Gather(scales, ids)."""
    name, ids, result = node.input[0], node.input[1], node.output[0]
    rows, scales = quantize_rows(table)
    add_constant(model, f"{name}/int8", rows)
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
