"""A bias and the exact Gelu after it as one operator.

    before   y = Add(product, bias); y * (Erf(y / sqrt 2) + 1) * 0.5
    after    BiasGelu(product, bias)

The operator computes with erf, not with the approximation by tanh (that is FastGelu).

Source: com.microsoft.BiasGelu.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pairwire.v1 import manifest_pb2

from .sequence_major import MICROSOFT
from .view import GraphView, remove_dead, require_domain, sort_nodes

NAME = "bias_gelu"
_CLOSE = 1e-6


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts Gelus."""
    view = GraphView(model)
    erfs = [node for node in model.graph.node if node.op_type == "Erf"]
    rewritten = 0
    for erf in erfs:
        last = _gelu(view, erf)
        add = view.producers.get(_argument(view, erf)) if last is not None else None
        parts = _product_and_bias(view, add) if add is not None else None
        if last is None or parts is None:
            continue
        result = last.output[0]
        model.graph.node.remove(last)
        model.graph.node.append(
            helper.make_node("BiasGelu", list(parts), [result], name=f"{result}/BiasGelu", domain=MICROSOFT)
        )
        rewritten += 1
    if rewritten:
        require_domain(model, MICROSOFT)
        sort_nodes(model)
        remove_dead(model)
    left = len(erfs) - rewritten
    reason = f"{left} of {len(erfs)} Gelus have another form or no bias" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


def _gelu(view: GraphView, erf: NodeProto) -> NodeProto | None:
    """The last node of the Gelu around an Erf; None where any node is not what it must be."""
    argument = _argument(view, erf)
    plus = view.only_reader(erf.output[0], "Add")
    if not argument or plus is None or not _is_number(view, _other(plus, erf.output[0]), 1.0):
        return None
    times = view.only_reader(plus.output[0], "Mul")
    if times is None:
        return None
    left = _other(times, plus.output[0])
    if left == argument:  # y * (erf + 1), then halved
        half = view.only_reader(times.output[0], "Mul")
        good = half is not None and _is_number(view, _other(half, times.output[0]), 0.5)
        return half if good else None
    halved = view.producers.get(left)  # (y * 0.5) * (erf + 1)
    if halved is None or halved.op_type != "Mul" or argument not in halved.input:
        return None
    return times if _is_number(view, _other(halved, argument), 0.5) else None


def _argument(view: GraphView, erf: NodeProto) -> str:
    """What Erf(y / sqrt 2) is taken of, y; empty where there is none."""
    scaled = view.producers.get(erf.input[0])
    if scaled is None or scaled.op_type not in ("Div", "Mul"):
        return ""
    factor = math.sqrt(2) if scaled.op_type == "Div" else math.sqrt(0.5)
    return str(scaled.input[0]) if _is_number(view, scaled.input[1], factor) else ""


def _product_and_bias(view: GraphView, add: NodeProto) -> tuple[str, str] | None:
    parts = view.bias_of(add)
    width = (view.dims(add.output[0]) or ("unknown",))[-1]
    return parts if parts is not None and view.dims(parts[1]) == (width,) else None


def _other(node: NodeProto, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])


def _is_number(view: GraphView, name: str, number: float) -> bool:
    value = view.constant(name)
    return value is not None and value.size == 1 and bool(np.isclose(float(value.reshape(())), number, rtol=_CLOSE))
