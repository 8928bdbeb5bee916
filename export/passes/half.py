"""float32 -> float16, up to the last normalisation. What comes after it, pooling and head, stays float32.

Every operator above the last normalisation computes on float16 tensors (and accumulates in float32 inside, as its
kernels do); the hidden states that leave it are cast to float32. A score then has float16's error of the hidden states,
but none of its own: no ties from a sigmoid in 11 bits.

float16 has numbers up to 65504. A weight beyond that is refused, and what a graph adds to mask a token becomes the
smallest number there is.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pairwire.v1 import manifest_pb2

from ..storage import array_of
from .view import GraphView, remove_dead, sort_nodes

NAME = "half"
NORMS = ("EmbedLayerNormalization", "LayerNormalization", "SkipLayerNormalization")
_LARGEST = float(np.finfo(np.float16).max)
_MASKING = 1e30
"""No weight is that large; a number that masks is."""


class OutOfRange(ValueError):
    """A weight that float16 cannot hold."""


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts operators that compute in float16.

    Raises:
        OutOfRange: a weight is larger than 65504.
    """
    view = GraphView(model)
    hidden = last_norms(view)
    if not hidden:
        return manifest_pb2.PassReport(name=NAME, reason="the graph has no normalisation")
    above = view.ancestors(hidden)
    inside = [node for node in model.graph.node if any(name in above for name in node.output)]
    floats = _halve_weights(model, inside)
    for node in inside:
        floats |= _halve_node(node, floats)
    outside = [node for node in model.graph.node if not any(name in above for name in node.output)]
    _widen(model, floats, outside)
    del model.graph.value_info[:]
    sort_nodes(model)
    remove_dead(model)
    return manifest_pb2.PassReport(name=NAME, rewritten=sum(bool(floats & set(node.output)) for node in inside))


def last_norms(view: GraphView) -> list[str]:
    """Outputs of the normalisations after which there is no other."""
    norms = [node for node in view.graph.node if node.op_type in NORMS]
    covered: set[str] = set()
    for node in norms:
        covered |= view.ancestors(node.input)
    return [node.output[0] for node in norms if node.output[0] not in covered]


def _halve_weights(model: ModelProto, inside: Collection[NodeProto]) -> set[str]:
    """Gives the operators float16 copies of their float32 constants; the names of the copies."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    made: set[str] = set()
    for node in inside:
        for at, name in enumerate(node.input):
            if name not in constants:
                continue
            half = f"{name}/half"
            if half not in made:
                model.graph.initializer.append(numpy_helper.from_array(_halved(name, constants[name]), half))
                made.add(half)
            node.input[at] = half
    return made


def _halved(name: str, tensor: TensorProto) -> np.ndarray:
    value = array_of(tensor)
    if value.size == 1 and abs(float(value.reshape(()))) > _MASKING:
        value = np.clip(value, -_LARGEST, _LARGEST)
    largest = float(np.abs(value).max(initial=0.0))
    if not largest <= _LARGEST:
        raise OutOfRange(f"{name} has a weight of {largest:.3g}; float16 ends at {_LARGEST:.0f}")
    return value.astype(np.float16)


def _halve_node(node: NodeProto, floats: set[str]) -> set[str]:
    """The outputs of an operator that are float16 now."""
    if node.op_type == "Cast":
        target = next(item for item in node.attribute if item.name == "to")
        if target.i != TensorProto.FLOAT:
            return set()
        target.i = TensorProto.FLOAT16
        return set(node.output)
    if node.op_type in _NEVER_FLOAT or floats.isdisjoint(node.input):
        return set()
    return {node.output[0]}


def _widen(model: ModelProto, floats: set[str], outside: Collection[NodeProto]) -> None:
    """Lets what comes after the last normalisation read float32."""
    wide: set[str] = set()
    for node in outside:
        for at, name in enumerate(node.input):
            if name in floats:
                node.input[at] = f"{name}/float"
                wide.add(name)
    for name in sorted(wide):
        model.graph.node.append(
            helper.make_node("Cast", [name], [f"{name}/float"], name=f"{name}/float/Cast", to=TensorProto.FLOAT)
        )
    for value in model.graph.output:
        if value.name in floats:
            _widen_output(model, value.name)


def _widen_output(model: ModelProto, name: str) -> None:
    """A graph whose result is a hidden state itself."""
    half = f"{name}/half"
    for node in model.graph.node:
        node.input[:] = [half if source == name else source for source in node.input]
        node.output[:] = [half if source == name else source for source in node.output]
    model.graph.node.append(helper.make_node("Cast", [half], [name], name=f"{name}/Cast", to=TensorProto.FLOAT))


_NEVER_FLOAT = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Shape")
"""Operators whose result is not of the type of what they read."""
