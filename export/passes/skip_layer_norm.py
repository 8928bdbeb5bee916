"""A residual sum and its normalisation as one operator.

    before   Add(Add(product, bias), residual) -> LayerNormalization
    after    SkipLayerNormalization(product, residual, gamma, beta, bias)

For a GPU, where each operator is a pass over the whole tensor; on a CPU the fused kernel is several times slower. The
numbers that are added are the same, in another order.

Source: com.microsoft.SkipLayerNormalization.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from pairwire.v1 import manifest_pb2

from .sequence_major import MICROSOFT
from .view import GraphView, attribute, remove_dead, require_domain, sort_nodes

NAME = "skip_layer_norm"


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts normalisations."""
    view = GraphView(model)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    rewritten = 0
    for norm in norms:
        made = _fused(view, norm)
        if made is not None:
            model.graph.node.remove(norm)
            model.graph.node.append(made)
            rewritten += 1
    if rewritten:
        require_domain(model, MICROSOFT)
        sort_nodes(model)
        remove_dead(model)
    left = len(norms) - rewritten
    reason = f"{left} of {len(norms)} normalisations are not of a residual sum" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


def _fused(view: GraphView, norm: NodeProto) -> NodeProto | None:
    add = view.producers.get(norm.input[0])
    dims = view.dims(norm.input[0])
    over = attribute(norm, "axis", -1)
    if add is None or add.op_type != "Add" or dims is None or len(dims) != 3 or over not in (-1, 2):
        return None
    if view.only_reader(add.output[0], "LayerNormalization") is None or len(norm.output) > 1 or len(norm.input) < 3:
        return None
    first, second = add.input
    if view.dims(first) != dims or view.dims(second) != dims:
        return None
    inner, bias = _biased(view, first, dims[-1])
    residual = second
    if not bias:
        inner, bias = _biased(view, second, dims[-1])
        residual = first if bias else second
    inputs = [inner, residual, norm.input[1], norm.input[2], bias] if bias else [first, second, *norm.input[1:3]]
    return helper.make_node(
        "SkipLayerNormalization",
        inputs,
        [norm.output[0]],
        name=f"{norm.output[0]}/SkipLayerNormalization",
        domain=MICROSOFT,
        epsilon=attribute(norm, "epsilon", 1e-5),
    )


def _biased(view: GraphView, name: str, width: int | str) -> tuple[str, str]:
    """(tensor, bias) where ``name`` is their sum and read by nobody else; ("", "") otherwise."""
    parts = view.bias_of(view.producers.get(name))
    fits = parts is not None and view.dims(parts[1]) == (width,) and view.only_reader(name, "Add") is not None
    return parts if parts is not None and fits else ("", "")
