"""Keeps hidden states as [length, rows, hidden] instead of [rows, length, hidden], so that attention transposes less.

    before   q, k, v [rows, length, hidden] -> Reshape -> Transpose -> [rows, heads, length, d] -> MatMul
    after    q, k, v [length, rows, hidden] -> Reshape -> [length, rows, heads, d] -> FusedMatMul(transBatch)

A matrix product can read its operands with a stride, but only a batch axis that stands behind the rows of the matrix
is one for ONNX Runtime's FusedMatMul. With the token axis first, queries, keys and values are read where they were
written: of four Transposes a layer one is left, on the way back. All other operators treat tokens alone and do not
care about the order of the first two axes. Exact to the last bit: every product multiplies the same numbers in the
same order.

The pass walks up from what attention reads and down from what it writes, as far as operators treat tokens alone
(`_RULES`), and turns the axes at the ends. A scale between product and mask goes into the product.

Source: com.microsoft.FusedMatMul, attributes transBatchA and transBatchB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pairwire.v1 import manifest_pb2

from .view import GraphView, add_constant, attribute, remove_dead, require_domain, sort_nodes

NAME = "sequence_major"
MICROSOFT = "com.microsoft"
_SUFFIX = "/turned"


@dataclass(frozen=True, slots=True)
class Heads:
    """A tensor [rows, length, hidden] that is split into heads and transposed for a product."""

    source: str
    """The tensor before the split."""
    shape: str
    """The constant of its Reshape, [0, 0, heads, d] or with numbers for the zeros."""
    factor: float
    """What it is multiplied by after the split; 1 mostly."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The two products of one attention, which read heads of [rows, length, hidden] tensors."""

    query: Heads
    key: Heads
    value: Heads
    scores: NodeProto
    """MatMul(query, key)"""
    scale: float
    scaled: str
    """The product, scaled."""
    weighted: NodeProto
    """MatMul(weights, value)"""
    result: NodeProto
    """The Reshape that joins the heads again."""


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts attentions. Run it after passes that look for tokens."""
    view = GraphView(model)
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    found = [attention for node in softmaxes if (attention := read_attention(view, node)) is not None]
    if found:
        turn = _Turn(view, found)
        if turn.reason:
            return manifest_pb2.PassReport(name=NAME, reason=turn.reason)
        turn.commit(model)
        require_domain(model, MICROSOFT)
        sort_nodes(model)
        remove_dead(model)
    left = len(softmaxes) - len(found)
    reason = f"{left} of {len(softmaxes)} attentions have another form" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=len(found), reason=reason)


def read_attention(view: GraphView, softmax: NodeProto) -> Attention | None:
    """The attention around a Softmax; None where any node is not what it must be."""
    weighted = view.only_reader(softmax.output[0], "MatMul")
    back = view.only_reader(weighted.output[0], "Transpose") if weighted is not None else None
    joined = view.only_reader(back.output[0], "Reshape") if back is not None else None
    scores = _scores(view, softmax)
    if weighted is None or back is None or joined is None or scores is None:
        return None
    if weighted.input[0] != softmax.output[0] or attribute(back, "perm", None) != [0, 2, 1, 3]:
        return None
    if not view.is_constant(joined.input[1]):
        return None
    query = _heads(view, scores.input[0], [0, 2, 1, 3])
    key = _heads(view, scores.input[1], [0, 2, 3, 1])
    value = _heads(view, weighted.input[1], [0, 2, 1, 3])
    if query is None or key is None or value is None or value.factor != 1:
        return None
    scale, scaled = _scale(view, scores)
    return Attention(query, key, value, scores, scale * query.factor * key.factor, scaled, weighted, joined)


def _scores(view: GraphView, softmax: NodeProto) -> NodeProto | None:
    """The product of queries and keys above a Softmax, with a scale and a mask between them."""
    name = softmax.input[0]
    for _ in range(4):  # a scale, a mask and a position bias are the most that stands between them
        node = view.producers.get(name)
        if node is None or node.op_type == "MatMul":
            return node
        if node.op_type not in ("Add", "Div", "Mul", "Where"):
            return None
        above = [source for source in node.input if _comes_from(view, source, "MatMul")]
        # A mask is made of no product. Two products, or a second reader, are a form that this pass does not know.
        if len(above) != 1 or len(view.consumers.get(name, [])) != 1:
            return None
        name = above[0]
    return None


def _comes_from(view: GraphView, name: str, kind: str) -> bool:
    """Whether a tensor is the output of such a node, or of a scale or mask over one."""
    node = view.producers.get(name)
    if node is None:
        return False
    return node.op_type == kind or (
        node.op_type in ("Add", "Div", "Mul", "Where") and any(_comes_from(view, one, kind) for one in node.input)
    )


def _scale(view: GraphView, scores: NodeProto) -> tuple[float, str]:
    """(factor, tensor) where the product's only reader multiplies or divides it by a number; (1, product) else."""
    readers = view.consumers.get(scores.output[0], [])
    factor = _factor(view, readers[0], scores.output[0]) if len(readers) == 1 else None
    return (1.0, scores.output[0]) if factor is None else (factor, readers[0].output[0])


def _factor(view: GraphView, node: NodeProto, name: str) -> float | None:
    """What a node multiplies ``name`` by, where it does just that."""
    if node.op_type not in ("Div", "Mul"):
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    value = view.constant(other)
    if value is None or value.size != 1 or (node.op_type == "Div" and node.input[0] != name):
        return None
    number = float(value.reshape(()))
    return 1 / number if node.op_type == "Div" else number


def _heads(view: GraphView, name: str, perm: list[int]) -> Heads | None:
    """The Reshape and Transpose that made a tensor of one head a matrix, and a factor after, between or before them."""
    factor = 1.0
    node = view.producers.get(name)
    if node is not None and node.op_type in ("Div", "Mul"):
        inner = next((source for source in node.input if not view.is_constant(source)), "")
        found = _factor(view, node, inner)
        if found is None:
            return None
        factor, node = found, view.producers.get(inner)
    if node is None or node.op_type != "Transpose" or attribute(node, "perm", None) != perm:
        return None
    reshape = view.producers.get(node.input[0])
    if reshape is None or reshape.op_type != "Reshape":
        return None
    shape = view.constant(reshape.input[1])
    # The first two dims must be copied or found out: as numbers they would be those of another order of axes.
    if shape is None or len(shape) != 4 or int(shape[2]) <= 0 or int(shape[3]) <= 0 or int(shape[0]) != 0:
        return None
    if int(shape[1]) not in (0, 1):
        return None
    return Heads(reshape.input[0], reshape.input[1], factor)


@dataclass(frozen=True, slots=True)
class _Move:
    """How a node works on turned tensors."""

    inputs: tuple[int, ...]
    """Inputs to be turned; the others stay."""
    constants: Mapping[int, list[int]]
    """Inputs that become other constants."""
    attributes: Mapping[str, int]
    """Attributes that change."""


class _Turn:
    """The turned copies of all that attention touches. The model does not change before ``commit``."""

    def __init__(self, view: GraphView, attentions: list[Attention]) -> None:
        self.reason = ""
        """Why nothing can be turned."""
        self._view = view
        self._attentions = {attention.result.output[0]: attention for attention in attentions}
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, list[int]] = {}
        self._made: dict[str, str] = {}
        self._ends: set[str] = set()
        for name in self._moved():
            self._turned(name)

    def commit(self, model: ModelProto) -> None:
        """Adds the copies and lets the rest of the graph read them, turned back."""
        # The scale has gone into the product (alpha), so the node that scaled it must not scale it a second time.
        replaced = {attention.scaled for attention in self._attentions.values()}
        for node in [node for node in model.graph.node if node.output[0] in replaced]:
            model.graph.node.remove(node)
        moved = set(self._made) - self._ends
        for node in list(model.graph.node):
            if moved.isdisjoint(node.input) or not moved.isdisjoint(node.output):
                continue
            self._let_read(node)
        for name, value in self._constants.items():
            add_constant(model, name, np.array(value, dtype=np.int64))
        model.graph.node.extend(self._nodes)

    def _moved(self) -> list[str]:
        """Every tensor that is turned, in order: what attention reads, what it writes, and what follows from both."""
        view = self._view
        wanted = {
            head.source
            for attention in self._attentions.values()
            for head in (attention.query, attention.key, attention.value)
        }
        wanted |= set(self._attentions)
        # Up: from what attention reads to where tokens come from, as far as every operator treats tokens alone.
        above = set(wanted)
        todo = list(wanted)
        while todo:
            name = todo.pop()
            node = view.producers.get(name)
            move = self._move(node) if node is not None and name not in self._attentions else None
            for at in move.inputs if node is not None and move is not None else ():
                if node is not None and node.input[at] not in above:
                    above.add(node.input[at])
                    todo.append(node.input[at])
        # Down, in the graph's order, so that an operator comes after all that it reads. It follows if everything that
        # it would read turned is turned. Where only a part is, a Transpose at the border is cheaper.
        moved = set(above)
        order = []
        for node in view.graph.node:
            name = node.output[0]
            if name not in moved:
                move = self._move(node)
                follows = move is not None and move.inputs and all(node.input[at] in moved for at in move.inputs)
                if not follows or view.dims(name) is None:
                    continue
                moved.add(name)
            order.append(name)
        if moved & view.outputs:
            self.reason = "the graph gives the hidden states of all tokens"
        return order

    def _turned(self, name: str) -> str:
        """Name of the tensor with its first two axes exchanged."""
        if name not in self._made:
            node = self._view.producers.get(name)
            attention = self._attentions.get(name)
            move = None if node is None or attention is not None else self._move(node)
            result = name + _SUFFIX
            if attention is not None:
                self._attend(attention, result)
            elif node is None or move is None:
                self._ends.add(name)
                self._transpose(name, result)
            else:
                self._copy(node, move, result)
            self._made[name] = result
        return self._made[name]

    def _copy(self, node: NodeProto, move: _Move, result: str) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{result}/{node.op_type}"
        for at in move.inputs:
            copy.input[at] = self._turned(node.input[at])
        for at, value in move.constants.items():
            copy.input[at] = f"{result}/input{at}"
            self._constants[copy.input[at]] = value
        for key, number in move.attributes.items():
            for item in [item for item in copy.attribute if item.name == key]:
                copy.attribute.remove(item)
            copy.attribute.append(helper.make_attribute(key, number))
        copy.output[0] = result
        del copy.output[1:]
        self._nodes.append(copy)

    def _attend(self, attention: Attention, result: str) -> None:
        query, key, value = (
            self._split(heads, f"{result}/{part}")
            for heads, part in (
                (attention.query, "query"),
                (attention.key, "key"),
                (attention.value, "value"),
            )
        )
        scores = helper.make_node(
            "FusedMatMul",
            [query, key],
            [attention.scaled],
            name=f"{result}/scores",
            domain=MICROSOFT,
            alpha=attention.scale,
            transB=1,
            transBatchA=1,
            transBatchB=1,
        )
        weighted = helper.make_node(
            "FusedMatMul",
            [attention.weighted.input[0], value],
            [f"{result}/weighted"],
            name=f"{result}/weighted",
            domain=MICROSOFT,
            transBatchB=1,
        )
        back = helper.make_node(
            "Transpose", [f"{result}/weighted"], [f"{result}/back"], name=f"{result}/back", perm=[2, 0, 1, 3]
        )
        shape = self._view.constant(attention.result.input[1])
        assert shape is not None  # as `_read` made sure
        hidden = int(shape[2]) if len(shape) == 3 and int(shape[2]) > 0 else -1
        self._constants[f"{result}/shape"] = [0, 0, hidden]
        join = helper.make_node("Reshape", [f"{result}/back", f"{result}/shape"], [result], name=f"{result}/join")
        self._nodes += [scores, weighted, back, join]

    def _split(self, heads: Heads, result: str) -> str:
        shape = self._view.constant(heads.shape)
        assert shape is not None  # as `_heads` made sure
        self._constants[f"{result}/shape"] = [0, 0, int(shape[2]), int(shape[3])]
        node = helper.make_node(
            "Reshape", [self._turned(heads.source), f"{result}/shape"], [result], name=f"{result}/split"
        )
        self._nodes.append(node)
        return result

    def _transpose(self, name: str, result: str) -> None:
        dims = self._view.dims(name)
        assert dims is not None  # as `_move` made sure of whatever it lists
        perm = [1, 0, *range(2, len(dims))]
        self._nodes.append(helper.make_node("Transpose", [name], [result], name=f"{result}/Transpose", perm=perm))

    def _let_read(self, node: NodeProto) -> None:
        """Gives a node that is not turned what it read before."""
        for at, name in enumerate(node.input):
            if name not in self._made or name in self._ends:
                continue
            # Pooling of the first token needs no Transpose: it reads index 0 of the other axis.
            if _first_token(self._view, node) and at == 0:
                node.input[0] = self._made[name]
                node.attribute.remove(next(item for item in node.attribute if item.name == "axis"))
                node.attribute.append(helper.make_attribute("axis", 0))
                continue
            back = f"{name}/turned_back"
            if all(back not in made.output for made in self._nodes):
                dims = self._view.dims(name) or (0, 0, 0)
                perm = [1, 0, *range(2, len(dims))]
                self._nodes.append(
                    helper.make_node("Transpose", [self._made[name]], [back], name=f"{back}/Transpose", perm=perm)
                )
            node.input[at] = back

    def _move(self, node: NodeProto) -> _Move | None:
        """The rule for this node, or None where it does not treat tokens alone."""
        rule = _RULES.get(node.op_type)
        dims = self._view.dims(node.output[0])
        if rule is None or dims is None or len(dims) not in (2, 3):
            return None
        if any(name in self._view.consumers or name in self._view.outputs for name in node.output[1:]):
            return None
        return rule(self._view, node)


def _first_token(view: GraphView, node: NodeProto) -> bool:
    """Whether a node reads index 0 of the token axis."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 1:
        return False
    index = view.constant(node.input[1])
    return index is not None and index.ndim == 0 and not index.any()


def _elementwise(view: GraphView, node: NodeProto) -> _Move | None:
    inputs = []
    rank = len(view.dims(node.output[0]) or ())
    for at, name in enumerate(node.input):
        dims = view.dims(name)
        if dims is None:
            return None
        if len(dims) == rank:
            inputs.append(at)
        elif len(dims) == rank - 1 and dims[0] != 1:  # its first axis is the token axis
            return None
    return _Move(tuple(inputs), {}, {})


def _along_last(view: GraphView, node: NodeProto) -> _Move | None:
    dims = view.dims(node.input[0])
    last = dims is not None and attribute(node, "axis", -1) in (-1, len(dims) - 1)
    return _Move((0,), {}, {"axis": -1}) if last else None


def _reduce(view: GraphView, node: NodeProto) -> _Move | None:
    dims = view.dims(node.input[0])
    axes = view.constant(node.input[1]) if len(node.input) > 1 else np.array(attribute(node, "axes", []))
    if dims is None or axes is None or attribute(node, "keepdims", 1) != 1:
        return None
    return _Move((0,), {}, {}) if axes.tolist() in ([-1], [len(dims) - 1]) else None


def _matmul(view: GraphView, node: NodeProto) -> _Move | None:
    dims = view.dims(node.input[0])
    constant = view.is_constant(node.input[1]) and len(view.dims(node.input[1]) or ()) == 2
    return _Move((0,), {}, {}) if constant and dims is not None and len(dims) == 3 else None


def _lookup(view: GraphView, node: NodeProto) -> _Move | None:
    """Rows of a table for [rows, length] ids."""
    ids = view.dims(node.input[1])
    table = view.is_constant(node.input[0]) and attribute(node, "axis", 0) == 0
    return _Move((1,), {}, {}) if table and ids is not None and len(ids) == 2 else None


def _slice(view: GraphView, node: NodeProto) -> _Move | None:
    """A Slice of the token axis, as where a layer is computed for one token."""
    dims = view.dims(node.input[0])
    axes = view.constant(node.input[3]) if len(node.input) > 3 else None
    steps = view.constant(node.input[4]) if len(node.input) > 4 else None
    if dims is None or axes is None or len(dims) != 3 or (steps is not None and steps.tolist() != [1]):
        return None
    return _Move((0,), {3: [0]}, {}) if axes.tolist() in ([1], [-2]) else None


_UNARY = ("Abs", "Cast", "Erf", "Exp", "Gelu", "Identity", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh")
_BROADCAST = ("Add", "Div", "Mul", "Pow", "Sub")
_RULES: dict[str, Callable[[GraphView, NodeProto], _Move | None]] = {
    **dict.fromkeys((*_UNARY, *_BROADCAST), _elementwise),
    "Gather": _lookup,
    "LayerNormalization": _along_last,
    "MatMul": _matmul,
    "ReduceMean": _reduce,
    "Slice": _slice,
}
