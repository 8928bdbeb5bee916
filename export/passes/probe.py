"""A session on the CPU that gives tensors from inside a graph: for what is found out by running it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, helper

from pairwire.server.runtime.ort import ort

from ..storage import open_session
from .view import GraphView


def probing_session(model: ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Has the named tensors as its outputs, each once, and computes nothing else. The model does not change."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return open_session(_part(model, names), options)


def _part(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The graph with all its inputs and what the tensors are computed from."""
    needed = GraphView(model).ancestors(names)
    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = model.graph.name
    part.graph.input.extend(model.graph.input)
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    part.graph.node.extend(node for node in model.graph.node if not needed.isdisjoint(node.output))
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    return part
