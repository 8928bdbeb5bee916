"""Takes the biases of keys and values out of attention, where they need not be.

    keys     softmax_j(q . (k_j + b)) = softmax_j(q . k_j + q . b) = softmax_j(q . k_j): the same number for every key
    values   sum_j w_j (v_j + b) = sum_j w_j v_j + b, as weights sum to one; the next product takes b W_o into its bias

Exact up to rounding. Two of the six products of a layer, narrow ones, write their result without adding to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from pairwire.v1 import manifest_pb2

from .sequence_major import Attention, read_attention
from .view import GraphView, add_constant, attribute, remove_dead

NAME = "fold_bias"
_MASKED = -1e4
"""A score below this is no longer seen among others."""


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place, before `sequence_major`. ``rewritten`` counts biases."""
    view = GraphView(model)
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    found = [attention for node in softmaxes if (attention := read_attention(view, node)) is not None]
    rewritten = 0
    for attention in found:
        if softmax_of(view, attention.scores.output[0]) is not None:
            rewritten += _drop(view, attention.key.source)
        rewritten += _fold(model, view, attention)
    remove_dead(model)
    left = 2 * len(softmaxes) - rewritten
    reason = f"{left} of {2 * len(softmaxes)} biases are not there or stand elsewhere" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


def softmax_of(view: GraphView, name: str) -> NodeProto | None:
    """The softmax over products ``name`` where it takes a number that is added to all of a query's out again.

    Between both may stand scales, additions, and a Where that puts something hugely negative instead of what is
    masked.
    """
    while True:
        readers = [node for node in view.consumers.get(name, []) if node.op_type != "Shape"]
        if len(readers) != 1:
            return None
        node = readers[0]
        others = [view.constant(source) for source in node.input[node.op_type == "Where" :] if source != name]
        if node.op_type == "Softmax":
            return node if attribute(node, "axis", -1) in (-1, 3) else None
        if node.op_type in ("Div", "Mul"):
            fine = node.input[0] == name or node.op_type == "Mul"
            fine = fine and all(value is not None and value.size == 1 for value in others)
        elif node.op_type == "Where":
            fine = all(
                value is not None and bool((np.asarray(value, dtype=np.float64) < _MASKED).all()) for value in others
            )
        else:
            fine = node.op_type == "Add"
        if not fine:
            return None
        name = node.output[0]


def biased_product(view: GraphView, add: NodeProto | None) -> tuple[str, npt.NDArray[np.generic]] | None:
    """(product, bias) of an Add of a constant [outputs] to a product with constant weights that nobody else reads."""
    found = view.bias_of(add)
    product = view.producers.get(found[0]) if found is not None else None
    if found is None or product is None or product.op_type != "MatMul" or not view.is_constant(product.input[1]):
        return None
    bias = view.constant(found[1])
    return None if bias is None or view.only_reader(found[0], "Add") is None else (found[0], bias)


def _drop(view: GraphView, name: str) -> int:
    """Lets the only reader of a biased tensor read the product before the bias; returns how many biases went."""
    found = biased_product(view, view.producers.get(name))
    reader = view.only_reader(name, "Reshape")
    if found is None or reader is None:
        return 0
    reader.input[0] = found[0]
    return 1


def _fold(model: ModelProto, view: GraphView, attention: Attention) -> int:
    """Moves the bias of the values into that of the product that reads the attention's result."""
    found = biased_product(view, view.producers.get(attention.value.source))
    product = view.only_reader(attention.result.output[0], "MatMul")
    weights = view.constant(product.input[1]) if product is not None else None
    add = view.only_reader(product.output[0], "Add") if product is not None else None
    after = biased_product(view, add)
    if found is None or weights is None or weights.ndim != 2 or add is None or after is None:
        return 0
    if not _drop(view, attention.value.source):
        return 0
    bias = after[1].astype(np.float64) + found[1].astype(np.float64) @ weights.astype(np.float64)
    name = add_constant(model, f"{add.output[0]}/{NAME}", bias.astype(np.float32))
    add.input[0 if add.input[1] == after[0] else 1] = name
    return 1
