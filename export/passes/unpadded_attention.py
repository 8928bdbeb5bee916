"""Attention without a mask for a long row without padding: ONNX Runtime's fused kernel, which takes no mask on a CPU.

    before   softmax(q k^T / sqrt(d) + mask) v, from behind the split into heads to the join of the heads
    after    If(one long row, the mask all ones) then MultiHeadAttention(q, k, v) else what was there

Split and join stand outside: a Reshape of what comes from outside or goes there is a copy, else it is free.

The mask adds zero where nothing is padded, so both branches are the same function; they share all weights, which stand
outside. The fused kernel never writes the [rows, heads, length, length] matrices to memory, which is what long rows
spend their time on. Which branch is taken is decided once a run.

The two differ in rounding, which int8 magnifies. So that a score does not depend on its batch-mates, the engine runs
every row of ``unpadded_from`` tokens or more alone, and the graph uses the kernel for no other: which kernel computes
a row depends on the row alone. With one row, [length, 1, hidden] and [1, length, hidden] are the same memory.

Source: com.microsoft.MultiHeadAttention, onnxruntime/contrib_ops/cpu/bert/multihead_attention.cc (flash attention only
without key_padding_mask and attention_bias).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.v1 import manifest_pb2

from .probe import probing_session
from .sequence_major import MICROSOFT
from .view import GraphView, add_constant, attribute, require_domain

NAME = "unpadded_attention"
MASK = "attention_mask"
UNPADDED = "pairwire/unpadded"
"""The condition: one bool for the whole batch."""
_SHORT = 64
"""What every model reads."""
_LONGEST_PROBE = 2048
"""No model looks further before its windows or buckets of distances end, and a mask of this many tokens has 16 MiB."""
UNPADDED_FROM = 256
"""Tokens from which the fused kernel is used, unless another number is asked for; below, it gains less than 5 %."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The nodes of one attention, in the order of the graph, and what the fused operator must know of it."""

    nodes: tuple[NodeProto, ...]
    query: str
    key: str
    value: str
    """[length, rows, heads, d], each of them; the query of a pruned layer has length 1."""
    whole_query: str
    """[length, rows, heads * d], the shape of the result."""
    joined: NodeProto
    """The Reshape of the result."""
    heads: int
    hidden: int
    """heads * d"""
    scale: float
    mask: str
    """What is added to the scaled products."""


def apply(model: ModelProto, *, unpadded_from: int = UNPADDED_FROM, longest: int = _SHORT) -> manifest_pb2.PassReport:
    """Rewrites the model in place, after `sequence_major`. ``rewritten`` counts attentions.

    ``unpadded_from`` is the number of tokens from which the fused kernel is used, ``longest`` how many a row may have.
    Run it last: it hides attentions from other passes.
    """
    view = GraphView(model)
    if MASK not in {value.name for value in model.graph.input}:
        return manifest_pb2.PassReport(name=NAME, reason=f"the graph has no input {MASK}")
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    found = [attention for node in softmaxes if (attention := _read(view, node)) is not None]
    idle = _zero_without_padding(model, {attention.mask for attention in found}, min(longest, _LONGEST_PROBE))
    biased = sum(attention.mask not in idle for attention in found)
    found = [attention for attention in found if attention.mask in idle]
    for attention in found:
        _replace(model, attention)
    if found:
        _add_condition(model, unpadded_from)
        require_domain(model, MICROSOFT)
    other, every = len(softmaxes) - len(found) - biased, f"of {len(softmaxes)} attentions"
    reasons = [f"{other} {every} have another form"] * bool(other)
    reasons += [f"{biased} {every} add more than a mask of padding"] * bool(biased)
    return manifest_pb2.PassReport(name=NAME, rewritten=len(found), reason="; ".join(reasons))


def _read(view: GraphView, softmax: NodeProto) -> Attention | None:
    """The attention around a Softmax, as `sequence_major` writes it; None where any node is not what it must be."""
    add = view.producers.get(softmax.input[0])
    scores = view.producers.get(add.input[0]) if add is not None and add.op_type == "Add" else None
    weighted = view.only_reader(softmax.output[0], "FusedMatMul")
    back = view.only_reader(weighted.output[0], "Transpose") if weighted is not None else None
    joined = view.only_reader(back.output[0], "Reshape") if back is not None else None
    if add is None or scores is None or scores.op_type != "FusedMatMul" or not attribute(scores, "transBatchB", 0):
        return None
    if weighted is None or back is None or joined is None or not attribute(weighted, "transBatchB", 0):
        return None
    query = view.producers.get(scores.input[0])
    shape = view.constant(query.input[1]) if query is not None and query.op_type == "Reshape" else None
    if query is None or shape is None or len(shape) != 4:
        return None
    scale = attribute(scores, "alpha", 1.0)
    assert isinstance(scale, float)
    chain = (scores, add, softmax, weighted, back)
    return Attention(
        nodes=tuple(node for node in view.graph.node if any(node is member for member in chain)),
        query=scores.input[0],
        key=scores.input[1],
        value=weighted.input[1],
        whole_query=query.input[0],
        joined=joined,
        heads=int(shape[2]),
        hidden=int(shape[2]) * int(shape[3]),
        scale=scale,
        mask=add.input[1],
    )


def _zero_without_padding(model: ModelProto, names: set[str], longest: int) -> set[str]:
    """Which tensors are all zeros where the mask is all ones: found by running the graph.

    What else could they hold? A relative position bias, say, which the fused kernel would drop; or a window of some
    hundred tokens, which shows in long rows only.
    """
    if not names:
        return set()
    session = probing_session(model, sorted(names))
    zero = set(names)
    for rows, length in ((1, 5), (2, 9), (1, longest)):
        # An input of one axis is how long prompts are, which no mask of attention depends on.
        inputs = session.get_inputs()
        feeds = {node.name: np.ones((rows, length)[: len(node.shape)], dtype=np.int64) for node in inputs}
        values = session.run(sorted(names), feeds)
        zero -= {name for name, value in zip(sorted(names), values, strict=True) if value.any()}
    return zero


def _replace(model: ModelProto, attention: Attention) -> None:
    graph = model.graph
    result = attention.joined.output[0]
    heads, fused, plain, shape = (f"{result}/{name}" for name in ("heads", "unpadded", "padded", "whole"))
    alone = add_constant(model, f"{result}/alone", np.array([1, -1, attention.hidden], dtype=np.int64))
    parts = [f"{fused}/{part}" for part in ("query", "key", "value")]
    nodes = [
        helper.make_node("Reshape", [source, alone], [part], name=f"{part}/Reshape")
        for source, part in zip((attention.query, attention.key, attention.value), parts, strict=True)
    ]
    nodes.append(
        helper.make_node(
            "MultiHeadAttention",
            parts,
            [fused],
            name=f"{result}/MultiHeadAttention",
            domain=MICROSOFT,
            num_heads=attention.heads,
            scale=attention.scale,
        )
    )
    kept = [NodeProto() for _ in attention.nodes]
    for copy, original in zip(kept, attention.nodes, strict=True):
        copy.CopyFrom(original)
    kept[-1].output[0] = plain
    choice = helper.make_node(
        "If",
        [UNPADDED],
        [heads],
        name=f"{result}/If",
        then_branch=_branch("unpadded", nodes, fused),
        else_branch=_branch("padded", kept, plain),
    )
    at = next(index for index, node in enumerate(graph.node) if node.output[0] == result)
    graph.node[at].input[:] = [heads, shape]
    graph.node.insert(at, choice)
    graph.node.insert(at, helper.make_node("Shape", [attention.whole_query], [shape], name=f"{shape}/Shape"))
    names = {node.output[0] for node in attention.nodes}
    for node in [node for node in graph.node if node.output[0] in names]:
        graph.node.remove(node)


def _branch(name: str, nodes: list[NodeProto], result: str) -> object:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)])


def _add_condition(model: ModelProto, unpadded_from: int) -> None:
    """``UNPADDED`` = the mask has one row, of at least ``unpadded_from`` tokens, and its smallest value is above 0."""
    shape, rows, length, smallest = (f"{UNPADDED}/{name}" for name in ("shape", "rows", "length", "smallest"))
    first = add_constant(model, f"{UNPADDED}/0", np.array(0, dtype=np.int64))
    one = add_constant(model, f"{UNPADDED}/1", np.array(1, dtype=np.int64))
    least = add_constant(model, f"{UNPADDED}/least", np.array(unpadded_from, dtype=np.int64))
    alone, long, full, both = (f"{UNPADDED}/{name}" for name in ("alone", "long", "full", "alone_and_long"))
    nodes = [
        helper.make_node("Shape", [MASK], [shape], name=f"{shape}/Shape"),
        helper.make_node("Gather", [shape, first], [rows], name=f"{rows}/Gather", axis=0),
        helper.make_node("Gather", [shape, one], [length], name=f"{length}/Gather", axis=0),
        helper.make_node("Equal", [rows, one], [alone], name=f"{alone}/Equal"),
        helper.make_node("GreaterOrEqual", [length, least], [long], name=f"{long}/GreaterOrEqual"),
        helper.make_node("And", [alone, long], [both], name=f"{both}/And"),
        helper.make_node("ReduceMin", [MASK], [smallest], name=f"{smallest}/ReduceMin", keepdims=0),
        helper.make_node("Greater", [smallest, first], [full], name=f"{full}/Greater"),
        helper.make_node("And", [both, full], [UNPADDED], name=f"{UNPADDED}/And"),
    ]
    for at, node in enumerate(nodes):
        model.graph.node.insert(at, node)
