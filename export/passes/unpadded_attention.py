"""Attention without a mask where a batch has no padding: ONNX Runtime's fused kernel, which takes no mask on a CPU.

    before   softmax(q k^T / sqrt(d) + mask) v, from Reshape and Transpose of q, k, v to the Reshape of the result
    after    If(the batch is long and the mask all ones) then MultiHeadAttention(q, k, v) else what was there

The mask adds zero where nothing is padded, so both branches are the same function; they share all weights, which stand
outside. The fused kernel never writes the [rows, heads, length, length] matrices to memory, which is what long rows
spend their time on. Which branch is taken is decided once a run.

The two differ in rounding, which int8 magnifies. So that a score does not depend on its batch-mates, the engine never
pads a row of ``UNPADDED_FROM`` tokens or more, and the graph uses the kernel for no shorter one: which kernel computes
a row depends on the row alone.

Source: com.microsoft.MultiHeadAttention, onnxruntime/contrib_ops/cpu/bert/multihead_attention.cc (flash attention only
without key_padding_mask and attention_bias).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.v1 import manifest_pb2

from .view import GraphView, add_constant, attribute

NAME = "unpadded_attention"
MASK = "attention_mask"
UNPADDED = "pairwire/unpadded"
"""The condition: one bool for the whole batch."""
UNPADDED_FROM = 256
"""Tokens from which the fused kernel is used; below, it gains less than 5 %."""
MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Attention:
    """The nodes of one attention, in the order of the graph, and what the fused operator must know of it."""

    nodes: tuple[NodeProto, ...]
    query: str
    key: str
    value: str
    result: str
    """[rows, length, heads * d], each of them; the query of a pruned layer has length 1."""
    heads: int
    scale: float
    mask: str
    """What is added to the scaled products."""


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts attentions. Run it last: it hides them from other passes."""
    view = GraphView(model)
    if MASK not in {value.name for value in model.graph.input}:
        return manifest_pb2.PassReport(name=NAME, reason=f"the graph has no input {MASK}")
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    found = [attention for node in softmaxes if (attention := _read(view, node)) is not None]
    idle = _zero_without_padding(model, {attention.mask for attention in found})
    found = [attention for attention in found if attention.mask in idle]
    for attention in found:
        _replace(model, attention)
    if found:
        _add_condition(model)
        if not any(opset.domain == MICROSOFT for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    left = len(softmaxes) - len(found)
    reason = f"{left} of {len(softmaxes)} attentions have another form" if left else ""
    return manifest_pb2.PassReport(name=NAME, rewritten=len(found), reason=reason)


def _read(view: GraphView, softmax: NodeProto) -> Attention | None:
    """The attention around a Softmax; None where any node is not what it must be."""
    add = view.producers.get(softmax.input[0])
    scaled = _producer(view, add, 0, "Add")
    product = _producer(view, scaled, 0, "Div") or _producer(view, scaled, 0, "Mul")
    if add is None or add.op_type != "Add" or scaled is None or product is None or product.op_type != "MatMul":
        return None
    factor = view.constant(scaled.input[1])
    weighted = _only_reader(view, softmax, "MatMul")
    back = _only_reader(view, weighted, "Transpose")
    joined = _only_reader(view, back, "Reshape")
    if factor is None or factor.size != 1 or weighted is None or back is None or joined is None:
        return None
    if weighted.input[0] != softmax.output[0] or attribute(back, "perm", None) != [0, 2, 1, 3]:
        return None
    sides = [
        _split(view, product.input[0], [0, 2, 1, 3]),
        _split(view, product.input[1], [0, 2, 3, 1]),
        _split(view, weighted.input[1], [0, 2, 1, 3]),
    ]
    (query, key, value) = sides
    if query is None or key is None or value is None or len({side[1] for side in (query, key, value)}) != 1:
        return None
    number = float(factor.reshape(()))
    chain = (*query[2], *key[2], *value[2], product, scaled, add, softmax, weighted, back, joined)
    return Attention(
        nodes=tuple(node for node in view.graph.node if any(node is member for member in chain)),
        query=query[0],
        key=key[0],
        value=value[0],
        result=joined.output[0],
        heads=query[1],
        scale=1 / number if scaled.op_type == "Div" else number,
        mask=add.input[1],
    )


def _zero_without_padding(model: ModelProto, names: set[str]) -> set[str]:
    """Which tensors are all zeros where the mask is all ones: found by running the graph.

    What else could they hold? A relative position bias, say, which the fused kernel would drop.
    """
    if not names:
        return set()
    probe = ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(names))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    zero = set(names)
    for rows, length in ((1, 5), (2, 9)):
        feeds = {node.name: np.ones((rows, length), dtype=np.int64) for node in session.get_inputs()}
        values = session.run(sorted(names), feeds)
        zero -= {name for name, value in zip(sorted(names), values, strict=True) if value.any()}
    return zero


def _producer(view: GraphView, node: NodeProto | None, at: int, kind: str) -> NodeProto | None:
    """What makes input ``at`` of a node of that kind."""
    if node is None or node.op_type != kind:
        return None
    return view.producers.get(node.input[at])


def _only_reader(view: GraphView, node: NodeProto | None, kind: str) -> NodeProto | None:
    readers = [] if node is None else view.consumers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def _split(view: GraphView, name: str, perm: list[int]) -> tuple[str, int, tuple[NodeProto, NodeProto]] | None:
    """(tensor [rows, length, heads * d], heads, Reshape and Transpose) behind a tensor of one head a matrix."""
    transpose = view.producers.get(name)
    if transpose is None or transpose.op_type != "Transpose" or attribute(transpose, "perm", None) != perm:
        return None
    reshape = view.producers.get(transpose.input[0])
    if reshape is None or reshape.op_type != "Reshape":
        return None
    shape = view.constant(reshape.input[1])
    if shape is None or len(shape) != 4 or int(shape[2]) <= 0:
        return None
    if any(len(view.consumers.get(node.output[0], [])) != 1 for node in (transpose, reshape)):
        return None
    return reshape.input[0], int(shape[2]), (reshape, transpose)


def _replace(model: ModelProto, attention: Attention) -> None:
    graph = model.graph
    fused, plain = f"{attention.result}/unpadded", f"{attention.result}/padded"
    node = helper.make_node(
        "MultiHeadAttention",
        [attention.query, attention.key, attention.value],
        [fused],
        name=f"{attention.result}/MultiHeadAttention",
        domain=MICROSOFT,
        num_heads=attention.heads,
        scale=attention.scale,
    )
    kept = [NodeProto() for _ in attention.nodes]
    for copy, original in zip(kept, attention.nodes, strict=True):
        copy.CopyFrom(original)
    kept[-1].output[0] = plain
    choice = helper.make_node(
        "If",
        [UNPADDED],
        [attention.result],
        name=f"{attention.result}/If",
        then_branch=_branch("unpadded", [node], fused),
        else_branch=_branch("padded", kept, plain),
    )
    at = next(index for index, one in enumerate(graph.node) if one.output[0] == attention.result)
    graph.node.insert(at, choice)
    names = {one.output[0] for one in attention.nodes}
    for one in [one for one in graph.node if one.output[0] in names and one.op_type != "If"]:
        graph.node.remove(one)


def _branch(name: str, nodes: list[NodeProto], result: str) -> object:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)])


def _add_condition(model: ModelProto) -> None:
    """``UNPADDED`` = smallest value of the mask > 0 and its second dim >= ``UNPADDED_FROM``."""
    zero = add_constant(model, f"{UNPADDED}/zero", np.array(0, dtype=np.int64))
    second = add_constant(model, f"{UNPADDED}/second", np.array(1, dtype=np.int64))
    least = add_constant(model, f"{UNPADDED}/least", np.array(UNPADDED_FROM, dtype=np.int64))
    smallest, shape, length, full, long = (
        f"{UNPADDED}/{name}" for name in ("smallest", "shape", "length", "full", "long")
    )
    nodes = [
        helper.make_node("ReduceMin", [MASK], [smallest], name=f"{smallest}/ReduceMin", keepdims=0),
        helper.make_node("Greater", [smallest, zero], [full], name=f"{full}/Greater"),
        helper.make_node("Shape", [MASK], [shape], name=f"{shape}/Shape"),
        helper.make_node("Gather", [shape, second], [length], name=f"{length}/Gather", axis=0),
        helper.make_node("GreaterOrEqual", [length, least], [long], name=f"{long}/GreaterOrEqual"),
        helper.make_node("And", [full, long], [UNPADDED], name=f"{UNPADDED}/And"),
    ]
    for at, node in enumerate(nodes):
        model.graph.node.insert(at, node)
