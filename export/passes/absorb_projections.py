"""Attention of one query without keys and values: their projections go to the query's side, where one token stands.

    before   x [length, rows, hidden] -> keys, values (a product with every token) -> softmax(q k^T) v
    after    q W_k^T [heads, hidden] -> softmax((q W_k^T) x^T) -> weighted x [heads, hidden] -> W_v

(q W_k^T) x^T = q (x W_k)^T, and weights sum to one: w (x W_v + b) = (w x) W_v + b. A bias of the keys adds the same
number to all products of a query, which the softmax takes out again. Exact up to rounding. Where the last layer is
computed for one token (`prune_last_layer`) its keys and values are the only products over all tokens: the two become
``heads`` rows for each text. The new products are float32 in every variant.

Source: weight absorption of DeepSeek-V2's latent attention (arXiv 2405.04434, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper

from pairwire.server.profiling.products import ABSORBED
from pairwire.server.runtime.base import Float32Array
from pairwire.v1 import manifest_pb2

from .fold_bias import biased_product, softmax_of
from .sequence_major import MICROSOFT
from .view import GraphView, add_constant, attribute, remove_dead, sort_nodes

NAME = "absorb_projections"


@dataclass(frozen=True, slots=True)
class Projection:
    """x [length, rows, inputs] -> [length, rows, heads, d], by a product that nobody else reads."""

    source: str
    """x"""
    weights: Float32Array
    """[inputs, heads, d]"""
    bias: Float32Array | None
    """[heads, d]"""


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one query a row, as `sequence_major` writes it."""

    scores: NodeProto
    """FusedMatMul(query, key), with a scale."""
    weighted: NodeProto
    """FusedMatMul(weights, value)"""
    back: NodeProto
    """The Transpose of the result to [1, rows, heads, d]."""
    key: Projection
    value: Projection


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place, after `sequence_major`. ``rewritten`` counts attentions."""
    view = GraphView(model)
    products = [node for node in model.graph.node if node.op_type == "FusedMatMul"]
    alone = [node for node in products if _is_of_one_query(view, node)]
    if not alone:
        return manifest_pb2.PassReport(name=NAME, reason="no attention has one query")
    found = [attention for node in alone if (attention := _read(view, node)) is not None]
    for attention in found:
        _replace(model, attention)
    if found:
        sort_nodes(model)
        remove_dead(model)
    left = len(alone) - len(found)
    reason = f"{left} of {len(alone)} attentions of one query have another form" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=len(found), reason=reason)


def _is_of_one_query(view: GraphView, node: NodeProto) -> bool:
    """Whether a product of queries [length, rows, heads, d] and keys is one of the first token's query."""
    turned = all(attribute(node, name, 0) == 1 for name in ("transB", "transBatchA", "transBatchB"))
    return turned and _is_first_token(view, node.input[0])


def _is_first_token(view: GraphView, name: str) -> bool:
    """Whether what treats tokens alone made a tensor of a Slice of the first index of its first axis.

    Shapes cannot tell: their inference does not know what a FusedMatMul of turned axes gives.
    """
    while (node := view.producers.get(name)) is not None and node.op_type != "Slice":
        inner = [source for source in node.input if not view.is_constant(source)]
        if node.op_type not in ("Add", "Div", "MatMul", "Mul", "Reshape") or len(inner) != 1:
            return False
        name = inner[0]
    bounds = [view.constant(source) for source in node.input[1:]] if node is not None else []
    return [None if bound is None else bound.tolist() for bound in bounds] == [[0], [1], [0]]


def _read(view: GraphView, scores: NodeProto) -> Attention | None:
    """The attention of which that is the first product; None where any node is not what it must be."""
    softmax = softmax_of(view, scores.output[0])
    weighted = view.only_reader(softmax.output[0], "FusedMatMul") if softmax is not None else None
    back = view.only_reader(weighted.output[0], "Transpose") if weighted is not None else None
    if softmax is None or weighted is None or back is None or weighted.input[0] != softmax.output[0]:
        return None
    if not attribute(weighted, "transBatchB", 0) or attribute(weighted, "transB", 0):
        return None
    if attribute(back, "perm", None) != [2, 0, 1, 3]:
        return None
    key, value = _projection(view, scores.input[1]), _projection(view, weighted.input[1])
    return None if key is None or value is None else Attention(scores, weighted, back, key, value)


def _projection(view: GraphView, name: str) -> Projection | None:
    reshape = view.producers.get(name)
    shape = view.constant(reshape.input[1]) if reshape is not None and reshape.op_type == "Reshape" else None
    if reshape is None or shape is None or len(shape) != 4 or len(view.consumers[name]) != 1:
        return None
    made = reshape.input[0]
    biased = biased_product(view, view.producers.get(made))
    product = view.producers.get(made if biased is None else biased[0])
    weights = view.constant(product.input[1]) if product is not None and product.op_type == "MatMul" else None
    if product is None or weights is None or weights.ndim != 2 or view.only_reader(made, "Reshape") is None:
        return None
    heads, width = int(shape[2]), int(shape[3])
    split = np.asarray(weights, dtype=np.float32).reshape(-1, heads, width)
    bias = None if biased is None else np.asarray(biased[1], dtype=np.float32).reshape(heads, width)
    return Projection(product.input[0], split, bias)


def _replace(model: ModelProto, attention: Attention) -> None:
    scores, weighted, result = attention.scores, attention.weighted, attention.back.output[0]
    nodes = _Nodes(model, f"{result}{ABSORBED}")
    heads, width = attention.key.weights.shape[1:]
    scale = attribute(scores, "alpha", 1.0)
    assert isinstance(scale, float)
    # [1, rows, heads, d] -> [heads, rows, inputs]
    query = nodes.add("Reshape", [scores.input[0], np.array([-1, heads, width])], "query")
    asked = nodes.multiply(query, attention.key.weights.transpose(1, 2, 0) * np.float32(scale), "keys", transBatchA=1)
    # -> [rows, heads, 1, length], where masks are added
    seen = nodes.multiply(asked, attention.key.source, "scores", transBatchA=1, transBatchB=1, transB=1)
    nodes.add("Unsqueeze", [seen, np.array([-2])], "spread", result=scores.output[0])
    # [rows, heads, 1, length] -> [rows, heads, inputs] -> [heads, rows, d]
    weights = nodes.add("Squeeze", [weighted.input[0], np.array([-2])], "weights")
    mean = nodes.multiply(weights, attention.value.source, "weighted", transBatchB=1)
    values = nodes.multiply(mean, attention.value.weights.transpose(1, 0, 2), "values", transBatchA=1)
    # -> [1, rows, heads, d]
    values = nodes.add("Transpose", [values], "turned", perm=[1, 0, 2])
    if attention.value.bias is not None:
        values = nodes.add("Add", [values, attention.value.bias], "biased")
    nodes.add("Unsqueeze", [values, np.array([0])], "joined", result=result)
    for gone in (scores, weighted, attention.back):
        model.graph.node.remove(gone)


class _Nodes:
    """New nodes of a graph, named after what they make."""

    def __init__(self, model: ModelProto, prefix: str) -> None:
        self._model = model
        self._prefix = prefix

    def multiply(self, left: str, right: str | npt.NDArray[np.generic], name: str, **attributes: int) -> str:
        """A FusedMatMul; the name of its output."""
        result = self.add("FusedMatMul", [left, right], name)
        node = self._model.graph.node[-1]
        node.domain = MICROSOFT
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        return result

    def add(
        self,
        kind: str,
        inputs: Sequence[str | npt.NDArray[np.generic]],
        name: str,
        *,
        result: str = "",
        perm: Sequence[int] | None = None,
    ) -> str:
        """The name of its output. Arrays become constants."""
        node = f"{self._prefix}{name}"
        names = [
            value if isinstance(value, str) else add_constant(self._model, f"{node}/constant", value)
            for value in inputs
        ]
        made = helper.make_node(kind, names, [result or node], name=node)
        if perm is not None:
            made.attribute.append(helper.make_attribute("perm", perm))
        self._model.graph.node.append(made)
        return result or node
