"""Computes the last layer for the first token only, where nothing else of it is read.

    before   hidden -> q, k, v -> attention -> dense, +, norm -> feed-forward, +, norm -> Gather -> head
    after    hidden -> k, v --------------------v
             hidden -> Slice(token 0) -> q -> attention -> dense, +, norm -> feed-forward, +, norm -> Gather -> head

The Gather reads index 0 of axis 1. Exact: every operator between the Gather and the attention treats tokens alone,
and attention's rows are independent of each other. The pass walks back from the Gather. An operator whose rule
(`_RULES`) says how token 0 of its output follows from token 0 of its inputs is copied for one token; keys, values and
whatever else needs all tokens stay as they are; where no rule applies, token 0 is cut out of the full tensor, which
is always right and only saves less. The token axis stays, with length 1, so shapes keep their rank. Axes are counted
from the end, as broadcasting does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pairwire.v1 import manifest_pb2

from .view import GraphView, add_constant, attribute, remove_dead, sort_nodes

NAME = "prune_last_layer"
_TOKENS = -2
"""The token axis of [rows, length, hidden]."""


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts tensors of which only the first token is read."""
    view = GraphView(model)
    selects: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if _reads_first_token(view, node):
            selects.setdefault(node.input[0], []).append(node)
    if not selects:
        return _report(0, "no place reads only the first token of a [rows, length, hidden] tensor")
    rewritten, reasons = 0, []
    for source, readers in selects.items():
        cut = _Cut(view, source, readers)
        if cut.reason:
            reasons.append(cut.reason)
        if cut.products:
            cut.commit(model)
            rewritten += 1
    if rewritten:
        sort_nodes(model)
        remove_dead(model)
    return _report(rewritten, "; ".join(reasons))


def _report(rewritten: int, reason: str) -> manifest_pb2.PassReport:
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten, reason=reason)


def _reads_first_token(view: GraphView, node: NodeProto) -> bool:
    return view.reads_first_token(node) and len(view.dims(node.input[0]) or ()) == 3


@dataclass(frozen=True, slots=True)
class _Step:
    """How token 0 of a node's output follows from its inputs."""

    inputs: dict[int, int]
    """Inputs of which only token 0 is needed, and the token axis in each (negative). The others are needed whole."""
    shape: list[int] | None = None
    """The new second input of a Reshape or Expand."""

    def whole(self, node: NodeProto) -> list[int]:
        """Inputs that the copy reads with all tokens."""
        return [at for at in range(len(node.input)) if at not in self.inputs and not (at == 1 and self.shape)]


class _Cut:
    """The copies that make token 0 of ``source``. The model does not change before ``commit``."""

    def __init__(self, view: GraphView, source: str, readers: Sequence[NodeProto]) -> None:
        self.products = 0
        """Matrix products with constant weights that run on one token after ``commit``."""
        self.reason = ""
        """Why nothing, or not everything, is cut."""
        self._view = view
        self._readers = readers
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, list[int]] = {}
        self._made: dict[tuple[str, int], str] = {}
        self._whole = view.ancestors(view.outputs, without=[id(node) for node in readers])
        if source in self._whole:
            self.reason = f"every token of {source} is read"
            return
        stops = self._find_whole(source)
        self._top = self._first(source, _TOKENS)
        if stops:
            self.reason = (
                f"no rule for {', '.join(f'{node.op_type} {node.name}' for node in stops)}: all tokens up to there"
            )
        elif not self.products:
            self.reason = f"no matrix product before {readers[0].name} treats tokens alone"

    def commit(self, model: ModelProto) -> None:
        """Adds the copies to the graph and lets the readers read them."""
        for name, value in self._constants.items():
            add_constant(model, name, np.array(value, dtype=np.int64))
        model.graph.node.extend(self._nodes)
        for node in self._readers:
            node.input[0] = self._top

    def _find_whole(self, source: str) -> list[NodeProto]:
        """Adds to ``_whole`` what the copies will need with all tokens; returns where the walk stopped too early."""
        stops: list[NodeProto] = []
        seen: set[tuple[str, int]] = set()
        todo = [(source, _TOKENS)]
        while todo:
            name, axis = todo.pop()
            if (name, axis) in seen:
                continue
            seen.add((name, axis))
            node = self._view.producers.get(name)
            step = _step(self._view, node, axis) if node is not None else None
            if node is not None and step is None:
                stops.append(node)
            elif node is not None and step is not None:
                todo.extend((node.input[at], inner) for at, inner in step.inputs.items())
                self._whole |= self._view.ancestors(node.input[at] for at in step.whole(node))
        stops = [node for node in stops if node.output[0] not in self._whole and self._has_products(node)]
        for node in stops:
            self._whole |= self._view.ancestors(node.output)
        return stops

    def _has_products(self, node: NodeProto) -> bool:
        above = self._view.ancestors(node.output) - self._whole
        return any(
            _is_product(self._view, self._view.producers[name]) for name in above if name in self._view.producers
        )

    def _first(self, name: str, axis: int) -> str:
        """Name of a tensor that is ``name`` with only index 0 of ``axis``."""
        if (name, axis) not in self._made:
            node = self._view.producers.get(name)
            step = None if node is None or name in self._whole else _step(self._view, node, axis)
            result = f"{name}/first{'' if axis == _TOKENS else axis}"
            self._made[name, axis] = result
            if node is None or step is None:
                self._slice(name, axis, result)
            else:
                self._copy(node, step, result)
        return self._made[name, axis]

    def _copy(self, node: NodeProto, step: _Step, result: str) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{result}/{node.op_type}"
        for at, inner in step.inputs.items():
            copy.input[at] = self._first(node.input[at], inner)
        if step.shape is not None:
            copy.input[1] = f"{result}/shape"
            self._constants[copy.input[1]] = step.shape
        copy.output[0] = result
        del copy.output[1:]
        self._nodes.append(copy)
        self.products += _is_product(self._view, node)

    def _slice(self, name: str, axis: int, result: str) -> None:
        bounds = {f"{result}/starts": [0], f"{result}/ends": [1], f"{result}/axes": [axis]}
        self._constants |= bounds
        self._nodes.append(helper.make_node("Slice", [name, *bounds], [result], name=f"{result}/slice"))


def _is_product(view: GraphView, node: NodeProto) -> bool:
    return node.op_type in ("MatMul", "Gemm") and view.is_constant(node.input[1])


def _step(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """The rule for this node, or None where token 0 of the output needs more than token 0 of the inputs."""
    rule = _RULES.get(node.op_type)
    extra_outputs = any(name in view.consumers or name in view.outputs for name in node.output[1:])
    return None if rule is None or extra_outputs else rule(view, node, axis)


def _elementwise(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    inputs = {}
    for at, name in enumerate(node.input):
        dims = view.dims(name)
        if dims is None:
            return None
        if len(dims) >= -axis and dims[axis] != 1:  # else the input is the same for all tokens
            inputs[at] = axis
    return _Step(inputs)


def _along_last(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """LayerNormalization and Softmax over the last axis."""
    dims = view.dims(node.input[0])
    over = attribute(node, "axis", -1)
    return _Step({0: axis}) if dims is not None and over in (-1, len(dims) - 1) and axis != -1 else None


def _reduce(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """ReduceMean over the last axis, which stays (a decomposed LayerNormalization)."""
    dims = view.dims(node.input[0])
    axes = view.constant(node.input[1]) if len(node.input) > 1 else np.array(attribute(node, "axes", []))
    if dims is None or axes is None or attribute(node, "keepdims", 1) != 1 or axis == -1:
        return None
    return _Step({0: axis}) if axes.tolist() in ([-1], [len(dims) - 1]) else None


def _matmul(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """Rows of the left operand are independent of each other. The right one (weights, keys, values) is needed whole."""
    dims = view.dims(node.input[0])
    return _Step({0: axis}) if axis == -2 and dims is not None and len(dims) >= 2 else None


def _gemm(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    bias = view.dims(node.input[2]) if len(node.input) > 2 else ()
    simple = bias is not None and len(bias) < 2 and not attribute(node, "transA", 0)
    return _Step({0: axis}) if simple and axis == -2 else None


def _transpose(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    dims = view.dims(node.input[0])
    if dims is None:
        return None
    order = attribute(node, "perm", list(range(len(dims)))[::-1])
    assert isinstance(order, list)
    return _Step({0: order[axis] - len(dims)})


def _reshape(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """A Reshape that only splits or joins axes behind the token axis: [b, s, h] <-> [b, s, heads, h / heads]."""
    before, after = view.dims(node.input[0]), view.dims(node.output[0])
    if before is None or after is None:
        return None
    at = len(after) + axis
    rest = after[at + 1 :]
    if before[: at + 1] != after[: at + 1] or not all(isinstance(dim, int) for dim in rest):
        return None
    return _Step({0: at - len(before)}, shape=[*[0] * at, 1, *[int(dim) for dim in rest]])


def _expand(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    """An Expand to dims that are numbers, or the input's own (1 in the shape keeps those)."""
    before, after = view.dims(node.input[0]), view.dims(node.output[0])
    if before is None or after is None or len(before) < -axis:
        return None
    aligned = (1,) * (len(after) - len(before)) + before
    shape = [1 if old == new else new for old, new in zip(aligned, after, strict=True)]
    shape[axis] = 1
    numbers = [dim for dim in shape if isinstance(dim, int)]
    return _Step({0: axis}, shape=numbers) if len(numbers) == len(shape) else None


def _concat(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    dims = view.dims(node.output[0])
    over = attribute(node, "axis", 0)
    if dims is None or over in (axis, len(dims) + axis):
        return None
    return _Step(dict.fromkeys(range(len(node.input)), axis))


def _slice(view: GraphView, node: NodeProto, axis: int) -> _Step | None:
    dims = view.dims(node.input[0])
    axes = view.constant(node.input[3]) if len(node.input) > 3 else None
    if dims is None or axes is None:
        return None
    return _Step({0: axis}) if axis not in [at if at < 0 else at - len(dims) for at in axes.tolist()] else None


_UNARY = ("Abs", "Cast", "Erf", "Exp", "Gelu", "Identity", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh")
_BROADCAST = ("Add", "Div", "Mul", "Pow", "Sub", "Where")
_RULES: dict[str, Callable[[GraphView, NodeProto, int], _Step | None]] = {
    **dict.fromkeys((*_UNARY, *_BROADCAST), _elementwise),
    "Concat": _concat,
    "Expand": _expand,
    "Gemm": _gemm,
    "LayerNormalization": _along_last,
    "MatMul": _matmul,
    "ReduceMean": _reduce,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _along_last,
    "Transpose": _transpose,
}
