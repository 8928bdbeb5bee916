"""A read view of an ONNX graph for passes: who makes a tensor, who reads it, what is constant, which dims are known.

Dims come from ONNX Runtime's symbolic shape inference, so two dims with one name are known to be equal for every
input. They are inferred when first asked for. A view is a snapshot: a pass that has changed the graph builds a new
one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from pairwire.server.runtime.ort import tool

from ..storage import array_of

Dims = tuple[int | str, ...]


class GraphView:
    """Look-ups over the main graph of a model. Constants are initializers: ONNX Runtime's basic level makes them so."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.producers: dict[str, NodeProto] = {name: node for node in self.graph.node for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in reads(node):
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.graph.output}
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._model = model

    @functools.cached_property
    def _dims(self) -> dict[str, Dims]:
        return _inferred_dims(self._model)

    def is_constant(self, name: str) -> bool:
        """Whether the tensor is an initializer."""
        return name in self._initializers

    def constant(self, name: str) -> npt.NDArray[np.generic] | None:
        """Value of an initializer; None for anything else."""
        tensor = self._initializers.get(name)
        return None if tensor is None else array_of(tensor)

    def dims(self, name: str) -> Dims | None:
        """Dims of a tensor: numbers, or names that stand for one number each. None where they are not known."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        return self._dims.get(name)

    def only_reader(self, name: str, kind: str) -> NodeProto | None:
        """The one node that reads a tensor, where there is no other and it is of that kind."""
        readers = self.consumers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type == kind and name not in self.outputs
        return readers[0] if alone else None

    def bias_of(self, add: NodeProto | None) -> tuple[str, str] | None:
        """(tensor, constant [n]) of an Add of a constant vector to a tensor; None for any other node."""
        if add is None or add.op_type != "Add":
            return None
        for name, other in (tuple(add.input), tuple(add.input)[::-1]):
            if self.is_constant(other) and len(self._initializers[other].dims) == 1 and not self.is_constant(name):
                return name, other
        return None

    def reads_first_token(self, node: NodeProto) -> bool:
        """Whether a node takes index 0 of axis 1 of what was computed, and nothing else."""
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 1 or self.is_constant(node.input[0]):
            return False
        index = self.constant(node.input[1])
        return index is not None and index.size == 1 and not index.any()

    def ancestors(self, names: Iterable[str], *, without: Iterable[int] = ()) -> set[str]:
        """The tensors from which ``names`` are computed, and themselves; nodes with an id() in ``without`` are cut."""
        cut = set(without)
        seen: set[str] = set()
        todo = [name for name in names if name]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.producers.get(name)
            if node is not None and id(node) not in cut:
                todo.extend(source for source in reads(node) if source)
        return seen


def reads(node: NodeProto) -> list[str]:
    """The tensors that a node reads, those included that the branches of an If take from outside."""
    names = list(node.input)
    for branch in (item.g for item in node.attribute if item.HasField("g")):
        inner = {tensor.name for tensor in branch.initializer} | {value.name for value in branch.input}
        inner |= {name for each in branch.node for name in each.output}
        asked = [name for each in branch.node for name in reads(each)] + [value.name for value in branch.output]
        names += [name for name in asked if name not in inner]
    return names


def attribute(node: NodeProto, name: str, default: object) -> object:
    """Value of an attribute, or the default."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def add_constant(model: ModelProto, name: str, value: npt.NDArray[np.generic]) -> str:
    """Adds an initializer and returns its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def require_domain(model: ModelProto, domain: str) -> None:
    """Declares version 1 of an operator domain, where that is not done yet."""
    if not any(opset.domain == domain for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))


def remove_dead(model: ModelProto) -> None:
    """Removes nodes and initializers that no output needs."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    alive: set[str] = set()
    todo = [value.name for value in graph.output]
    while todo:
        name = todo.pop()
        if name in alive:
            continue
        alive.add(name)
        if name in producers:
            todo.extend(reads(producers[name]))
    _keep(graph.node, [node for node in graph.node if any(name in alive for name in node.output)])
    # Taken out one by one: copies of the others would be as large as the model.
    for at in reversed(range(len(graph.initializer))):
        if graph.initializer[at].name not in alive:
            del graph.initializer[at]
    del graph.value_info[:]


def sort_nodes(model: ModelProto) -> None:
    """Puts nodes into an order in which every tensor is made before it is read."""
    graph = model.graph
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    waiting: list[NodeProto] = list(graph.node)
    ordered: list[NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if all(name in made for name in reads(node)):
                ordered.append(node)
                made.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError(f"the graph has a cycle or an unknown input at node {later[0].name!r}")
        waiting = later
    _keep(graph.node, ordered)


def _keep(field: object, items: Sequence[object]) -> None:
    """Replaces the content of a repeated field, keeping copies of the given items."""
    copies = [type(item)() for item in items]
    for copy, item in zip(copies, items, strict=True):
        copy.CopyFrom(item)  # type: ignore[attr-defined]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _inferred_dims(model: ModelProto) -> dict[str, Dims]:
    inference = tool("symbolic_shape_infer").SymbolicShapeInference
    graph = inference.infer_shapes(_without_weights(model), auto_merge=True).graph
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in [*graph.value_info, *graph.input, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def _without_weights(model: ModelProto) -> ModelProto:
    """A light copy for shape inference: large initializers become inputs, since only their shape matters."""
    copy = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    copy.graph.node.extend(model.graph.node)
    for node in copy.graph.node:
        if node.op_type in _LIKE_REDUCE_SUM:
            node.op_type = "ReduceSum"
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= _SMALL:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return copy


_SMALL = 64
"""Initializers of at most N values may be shapes and axes, whose values the inference reads."""
_LIKE_REDUCE_SUM = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin")
"""Operators that the inference does not know and whose output has ReduceSum's shape."""
