"""What a packed graph reads of the hidden states [tokens, hidden] of each row: its first token, or the mean of all."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.server.runtime.packed import CUMULATIVE_LENGTHS, MOST_TOKENS

from .unpadded_attention import MASK
from .view import GraphView, add_constant

ATTENTION = "PackedMultiHeadAttention"
BEGINS = "packed/begins"
"""Where each row begins."""
_ENDS = "packed/ends"
_OURS = "packed/"
"""Before the name of every node that is made here."""


def is_ours(node: NodeProto) -> bool:
    """Whether a node was made here."""
    return node.name.startswith(_OURS)


def pack_first_token(model: ModelProto) -> int:
    """Gather(hidden, 0, axis 1) -> Gather(hidden, where each row begins).

    It comes as early as operators treat tokens alone: of the last layer, all behind its attention is then computed at
    the tokens that are read only. Returns how many there are.
    """
    view = GraphView(model)
    selects = [node for node in model.graph.node if view.reads_first_token(node)]
    if not selects:
        return 0
    _add_ends(model)
    early = _Early(view)
    firsts = [early.first(node.input[0]) for node in selects]
    model.graph.node.extend(early.nodes)
    for node, first in zip(selects, firsts, strict=True):
        at = next(index for index, other in enumerate(model.graph.node) if other.output[0] == node.output[0])
        replacement = helper.make_node("Identity", [first], [node.output[0]], name=f"{node.output[0]}/Identity")
        model.graph.node[at].CopyFrom(replacement)
    return len(selects)


def pack_mean(model: ModelProto) -> int:
    """Div(ReduceSum(hidden * mask, axis 1), Clip(ReduceSum(mask, axis 1))) -> the same by a product of matrices.

    Returns how many there are.
    """
    view = GraphView(model)
    found = 0
    for node in list(model.graph.node):
        hidden, least = _mean(view, node)
        if not hidden:
            continue
        _add_ends(model)
        found += 1
        result = node.output[0]
        names = ("shape", "steps", "after", "before", "inside", "members", "sum", "counts", "count", "least")
        shape, steps, after, before, inside, members, total, counts, count, clipped = (f"{result}/{n}" for n in names)
        numbers = add_constant(model, f"{result}/numbers", np.arange(MOST_TOKENS, dtype=np.int32))
        zero = add_constant(model, f"{result}/zero", np.array([0], dtype=np.int64))
        one = add_constant(model, f"{result}/one", np.array([1], dtype=np.int64))
        nodes = [
            helper.make_node("Shape", ["input_ids"], [shape], name=f"{shape}/Shape"),
            helper.make_node("Slice", [numbers, zero, shape, zero], [steps], name=f"{steps}/Slice"),
            helper.make_node("Unsqueeze", [BEGINS, one], [f"{after}/begins"], name=f"{after}/Unsqueeze"),
            helper.make_node("Unsqueeze", [_ENDS, one], [f"{before}/ends"], name=f"{before}/Unsqueeze"),
            helper.make_node("LessOrEqual", [f"{after}/begins", steps], [after], name=f"{after}/LessOrEqual"),
            helper.make_node("Less", [steps, f"{before}/ends"], [before], name=f"{before}/Less"),
            helper.make_node("And", [after, before], [inside], name=f"{inside}/And"),
            helper.make_node("Cast", [inside], [members], name=f"{members}/Cast", to=TensorProto.FLOAT),
            helper.make_node("MatMul", [members, hidden], [total], name=f"{total}/MatMul"),
            helper.make_node("Sub", [f"{before}/ends", f"{after}/begins"], [counts], name=f"{counts}/Sub"),
            helper.make_node("Cast", [counts], [count], name=f"{count}/Cast", to=TensorProto.FLOAT),
            helper.make_node("Clip", [count, least], [clipped], name=f"{clipped}/Clip"),
            helper.make_node("Div", [total, clipped], [result], name=f"{result}/Div"),
        ]
        for each in nodes:
            each.name = f"{_OURS}{each.name}"
        model.graph.node.remove(node)
        model.graph.node.extend(nodes)
    _drop_expands(model)
    return found


def _add_ends(model: ModelProto) -> None:
    if any(BEGINS in node.output for node in model.graph.node):
        return
    zero = add_constant(model, "packed/0", np.array([0], dtype=np.int64))
    one = add_constant(model, "packed/1", np.array([1], dtype=np.int64))
    last = add_constant(model, "packed/-1", np.array([-1], dtype=np.int64))
    most = add_constant(model, "packed/most", np.array([np.iinfo(np.int64).max], dtype=np.int64))
    model.graph.node.extend(
        [
            helper.make_node("Slice", [CUMULATIVE_LENGTHS, zero, last, zero], [BEGINS], name=f"{BEGINS}/Slice"),
            helper.make_node("Slice", [CUMULATIVE_LENGTHS, one, most, zero], [_ENDS], name=f"{_ENDS}/Slice"),
        ]
    )


class _Early:
    """Copies of operators that are computed at the first tokens only."""

    def __init__(self, view: GraphView) -> None:
        self.nodes: list[NodeProto] = []
        self._view = view
        self._made: dict[str, str] = {}
        attentions = [node for node in view.graph.node if node.op_type == ATTENTION]
        self._whole = view.ancestors(name for node in attentions for name in node.input)

    def first(self, name: str) -> str:
        """The tensor [rows, ...] of the first tokens of ``name`` [tokens, ...]."""
        if name in self._made:
            return self._made[name]
        made = self._made[name] = f"{name}/first"
        node = self._view.producers.get(name)
        inputs = self._alone(node) if node is not None and name not in self._whole else None
        if node is None or inputs is None:
            self.nodes.append(helper.make_node("Gather", [name, BEGINS], [made], name=f"{made}/Gather", axis=0))
            return made
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{made}/{node.op_type}"
        for at in inputs:
            copy.input[at] = self.first(node.input[at])
        copy.output[0] = made
        self.nodes.append(copy)
        return made

    def _alone(self, node: NodeProto) -> list[int] | None:
        """Inputs that hold tokens, of an operator that treats them alone; None for any other."""
        tokens = [at for at, name in enumerate(node.input) if name and not self._view.is_constant(name)]
        if node.op_type == "MatMul":
            return tokens if tokens == [0] else None
        if node.op_type in ("Add", "BiasGelu", "Div", "Erf", "LayerNormalization", "Mul", "SkipLayerNormalization"):
            constants = [name for name in node.input if self._view.is_constant(name)]
            return tokens if all(len(self._view.dims(name) or ()) <= 1 for name in constants) else None
        return None


def _mean(view: GraphView, node: NodeProto) -> tuple[str, str]:
    """(hidden, what the number of tokens is at least) of a masked mean; ("", "") for any other node."""
    total = view.producers.get(node.input[0]) if node.op_type == "Div" else None
    clip = view.producers.get(node.input[1]) if node.op_type == "Div" else None
    if total is None or clip is None or total.op_type != "ReduceSum" or clip.op_type != "Clip":
        return "", ""
    count, weighted = view.producers.get(clip.input[0]), view.producers.get(total.input[0])
    if count is None or weighted is None or count.op_type != "ReduceSum" or weighted.op_type != "Mul":
        return "", ""
    axes = [view.constant(each.input[1]) for each in (total, count)]
    mask = count.input[0]
    if any(axis is None or axis.tolist() != [1] for axis in axes) or mask not in weighted.input:
        return "", ""
    if not _is_mask(view, mask):
        return "", ""
    hidden = next(name for name in weighted.input if name != mask)
    return str(hidden), str(clip.input[1])


def _is_mask(view: GraphView, name: str) -> bool:
    """Whether a tensor is the mask itself, repeated for each number of a hidden state: all tokens weigh the same."""
    while name != MASK:
        node = view.producers.get(name)
        if node is None or node.op_type not in ("Cast", "Expand", "Unsqueeze"):
            return False
        name = node.input[0]
    return True


def _drop_expands(model: ModelProto) -> None:
    """Div(x, Expand(y, Shape(x))) -> Div(x, y): dividing repeats y by itself."""
    view = GraphView(model)
    for node in model.graph.node:
        expand = view.producers.get(node.input[1]) if node.op_type == "Div" else None
        shape = view.producers.get(expand.input[1]) if expand is not None and expand.op_type == "Expand" else None
        if expand is not None and shape is not None and shape.op_type == "Shape" and shape.input[0] == node.input[0]:
            node.input[1] = expand.input[0]
