"""Tokens of all rows one after the other, without any padding: the form that a GPU runs.

    before   input_ids, token_type_ids, attention_mask: [rows, length]      hidden states [rows, length, hidden]
    after    input_ids, token_type_ids, position_ids: int32 [tokens]        hidden states [tokens, hidden]
             cumulative_lengths: int32 [rows + 1], token_offset: int32 [rows, length]

Almost every operator of an encoder treats tokens alone and does not care in how many axes they are arranged. What does
is rewritten:

    attention     softmax(q k^T * scale + padding mask) v, split into heads and joined again, becomes
                  PackedMultiHeadAttention(q, k, v, biases, token_offset, cumulative_lengths)
    positions     whatever computes 0, 1, 2 ... (or n, n + 1 ...) along each row becomes the input position_ids, less
                  the tokens that it leaves out: RoBERTa's family does not count padding, which a text may spell
    first token   Gather(hidden, 0) of axis 1 becomes Gather(hidden, cumulative_lengths[:-1])
    mean pooling  the masked sum over axis 1 becomes a product with the [rows, tokens] matrix of who belongs to whom

That a mask only masks padding, and that positions count up, is found out by running the graph on padded rows. What is
not understood is refused with its name: a graph is packed as a whole or not at all.

The shapes of a run are (tokens, rows, length): ``length`` is the most tokens of a row, of which only the number counts,
so token_offset needs no care where the kernel does not read it. Tokens that only fill the shape are rows of their own;
rows that only fill it are empty and come first, so that each row begins at a token that exists.

Source: com.microsoft.PackedMultiHeadAttention; without its RemovePadding, which waits for the device at every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from pairwire.server.runtime.packed import CUMULATIVE_LENGTHS, MOST_TOKENS, POSITION_IDS, TOKEN_OFFSET
from pairwire.v1 import manifest_pb2

from .pooling import ATTENTION, BEGINS, is_ours, pack_first_token, pack_mean
from .probe import probing_session
from .sequence_major import MICROSOFT, Attention, Heads, read_attention
from .unpadded_attention import MASK
from .view import GraphView, add_constant, attribute, remove_dead, require_domain, sort_nodes

NAME = "packed"
IDS = ("input_ids", "token_type_ids")
_NEGLIGIBLE = -1e4
"""What is added at padding is at most this: exp of it is 0 in any precision."""
_WORDS = (7, 8, 9, 10, 11)
"""Token ids that are no padding: position ids of some models count only the others."""
_PADDED = (([3, 7, 5], 7), ([4], 4), ([2, 9], 12))
"""(tokens of each row, padded length) of the batches that the graph is probed with, besides one long row."""
_SHORT = 32
"""What every model reads."""
_LONGEST_PROBE = 320
"""Windows are shorter, and the products of all attentions of a row of this many tokens fit into memory."""

Values = Mapping[str, npt.NDArray[Any]]


class NotPackable(ValueError):
    """What of the graph is not understood."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """Tensors of one padded batch."""

    inside: npt.NDArray[np.bool_]
    """[rows, length] where there are tokens."""
    values: Values


def apply(model: ModelProto, *, longest: int = _SHORT) -> manifest_pb2.PassReport:
    """Rewrites the model in place. ``rewritten`` counts attentions; ``longest`` is how many tokens a row may have.

    Run `skip_layer_norm` and `bias_gelu` before it: they need dims, which are not inferred for a packed graph.

    Raises:
        NotPackable: something of the graph reads other tokens in a way that is not known. The model is as it was.
    """
    packed = ModelProto()
    packed.CopyFrom(model)
    rewritten = _pack(packed, min(longest, _LONGEST_PROBE))
    model.CopyFrom(packed)
    return manifest_pb2.PassReport(name=NAME, rewritten=rewritten)


def _pack(model: ModelProto, longest: int) -> int:
    view = GraphView(model)
    attentions = _attentions(view)
    lookups = _lookups(view)
    names = [name for node, attention in attentions for name in (attention.scaled, node.input[0])]
    probes = _run(model, [*names, *(node.input[1] for node in lookups)], longest)
    for node, attention in attentions:
        if not all(_masks_only_padding(probe, attention.scaled, node.input[0]) for probe in probes):
            raise NotPackable(
                f"attention {attention.result.name} adds more than a mask of padding, as a bias by distance would be"
            )
    for node in lookups:
        _replace_index(model, view, node, probes)
    for _, attention in attentions:
        _replace_attention(model, view, attention)
    if not pack_first_token(model) + pack_mean(model) or len(model.graph.output) != 1:
        raise NotPackable("its result is not one vector a row, of the first token or the mean of all")
    _replace_inputs(model)
    require_domain(model, MICROSOFT)
    sort_nodes(model)
    remove_dead(model)
    _check_alone(model)
    return len(attentions)


def _attentions(view: GraphView) -> list[tuple[NodeProto, Attention]]:
    found = []
    for node in view.graph.node:
        if node.op_type == "Softmax":
            attention = read_attention(view, node)
            if attention is None:
                raise NotPackable(
                    f"attention around {node.name} has another form than softmax(q k + mask) v of three products"
                )
            found.append((node, attention))
    if not found:
        raise NotPackable("the graph has no attention")
    return found


def _lookups(view: GraphView) -> list[NodeProto]:
    """Look-ups in tables of embeddings by something else than the ids that are given."""
    return [
        node
        for node in view.graph.node
        if node.op_type == "Gather"
        and not attribute(node, "axis", 0)
        and len(view.dims(node.input[0]) or ()) == 2
        and view.is_constant(node.input[0])
        and node.input[1] not in IDS
    ]


def _run(model: ModelProto, names: Sequence[str], longest: int) -> list[_Probe]:
    names = list(dict.fromkeys(names))
    session = probing_session(model, names)
    # As many types as the table has, but two at most: the third would be nobody's.
    tables = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == IDS[1]]
    types = min([2, *(int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name in tables)])
    results = []
    for lengths, padded in (*_PADDED, ([longest], longest)):
        inside = np.arange(padded) < np.array(lengths)[:, None]
        given = {
            "input_ids": np.where(inside, np.resize(_WORDS, inside.shape), 0),
            "token_type_ids": np.where(inside, np.resize(range(types), inside.shape), 0),
            MASK: inside.astype(np.int64),
        }
        feeds = {node.name: given[node.name] for node in session.get_inputs()}
        results.append(_Probe(inside, dict(zip(names, session.run(names, feeds), strict=True))))
    return results


def _masks_only_padding(probe: _Probe, scaled: str, masked: str) -> bool:
    """Do the products and what Softmax reads differ at padding only, and there beyond hope?"""
    before, after = probe.values[scaled], probe.values[masked]
    keys = np.broadcast_to(probe.inside[:, None, None, :], before.shape)
    return np.array_equal(before[keys], after[keys]) and bool(np.all(after[~keys] < _NEGLIGIBLE))


def _replace_index(model: ModelProto, view: GraphView, node: NodeProto, probes: Sequence[_Probe]) -> None:
    """Lets a look-up read position_ids, or makes it a constant where it always reads one row."""
    table = view.constant(node.input[0])
    assert table is not None  # _lookups looked
    steps: set[int] = set()
    rows: set[int] = set()
    for probe in probes:
        index = np.broadcast_to(probe.values[node.input[1]], probe.inside.shape).astype(np.int64)
        rows |= set(index[probe.inside].tolist())
        steps |= set((index - np.arange(index.shape[1]))[probe.inside].tolist())
    result = node.output[0]
    if len(rows) == 1:
        row = add_constant(model, f"{result}/row", table[rows.pop()])
        model.graph.node.remove(node)
        model.graph.node.append(helper.make_node("Identity", [row], [result], name=f"{result}/Identity"))
    elif len(steps) == 1 and min(steps) >= 0:
        first, left_out = steps.pop(), _left_out(view, node)
        if left_out is not None:
            first = _check_counted(model, node, left_out, first)
        node.input[0] = add_constant(model, f"{result}/table", table[first:])
        node.input[1] = POSITION_IDS if left_out is None else _count(model, f"packed/{result}", left_out)
    else:
        raise NotPackable(f"{node.name} looks up neither ids nor positions")


def _left_out(view: GraphView, node: NodeProto) -> int | None:
    """The id that a look-up of positions compares the ids with; None where it reads none."""
    above = view.ancestors([node.input[1]])
    for each in view.graph.node:
        if each.op_type == "Equal" and IDS[0] in each.input and each.output[0] in above:
            value = next((view.constant(name) for name in each.input if view.is_constant(name)), None)
            if value is not None and value.size == 1:
                return int(value.reshape(()))
    return None


def _check_counted(model: ModelProto, node: NodeProto, left_out: int, first: int) -> int:
    """Row of the table that tokens of the id ``left_out`` look up, one before that of the ``first`` other token.

    Raises:
        NotPackable: they look up another, or are counted.
    """
    ids = np.array([[*_WORDS[:2], left_out, *_WORDS[2:4], left_out, _WORDS[4]]])
    session = probing_session(model, [node.input[1]])
    feeds = {each.name: ids if each.name == IDS[0] else np.ones_like(ids) for each in session.get_inputs()}
    counted = ids != left_out
    if first < 1 or not np.array_equal(session.run(None, feeds)[0], np.cumsum(counted, axis=1) * counted + first - 1):
        raise NotPackable(f"{node.name} counts positions in a way that is not known")
    return first - 1


def _count(model: ModelProto, name: str, left_out: int) -> str:
    """int32 [tokens]: the number of a token in its row among those of other ids, from 1; 0 for the id ``left_out``."""
    ids, zero = IDS[0], add_constant(model, f"{name}/0", np.array([0], dtype=np.int64))
    left = add_constant(model, f"{name}/left_out", np.array([left_out], dtype=np.int32))
    numbers = add_constant(model, f"{name}/numbers", np.arange(MOST_TOKENS, dtype=np.int32))

    def make(kind: str, inputs: list[str], part: str, **attributes: Any) -> str:
        result = f"{name}/{part}"
        model.graph.node.append(helper.make_node(kind, inputs, [result], name=f"{result}/{kind}", **attributes))
        return result

    other = make("Not", [make("Equal", [ids, left], "equal")], "other")
    one = make("Cast", [other], "one", to=TensorProto.INT32)
    until = make("CumSum", [one, zero], "until")
    before = make("Sub", [until, one], "before")
    token = make("Slice", [numbers, zero, make("Shape", [ids], "shape"), zero], "token")
    begin = make("Sub", [token, POSITION_IDS], "begin")
    number = make("Sub", [until, make("Gather", [before, begin], "skipped")], "number")
    return make("Mul", [number, one], "counted")


def _replace_attention(model: ModelProto, view: GraphView, attention: Attention) -> None:
    heads = (attention.query, attention.key, attention.value)
    shape = view.constant(attention.key.shape)
    assert shape is not None  # read_attention looked
    result = attention.result.output[0]
    parts = [_product_and_bias(view, head) for head in heads]
    biases = [bias for _, bias in parts if bias is not None]
    inputs = [product for product, _ in parts]
    if len(biases) == len(parts):
        inputs.append(add_constant(model, f"{result}/biases", np.concatenate(biases)))
    else:
        inputs = [*(head.source for head in heads), ""]
    node = helper.make_node(
        ATTENTION,
        [*inputs, TOKEN_OFFSET, CUMULATIVE_LENGTHS],
        [result],
        name=f"{result}/{ATTENTION}",
        domain=MICROSOFT,
        num_heads=int(shape[2]),
        scale=attention.scale,
    )
    model.graph.node.remove(attention.result)
    model.graph.node.append(node)


def _product_and_bias(view: GraphView, head: Heads) -> tuple[str, npt.NDArray[np.generic] | None]:
    """The product that made queries, keys or values, and the bias that was added to it."""
    parts = view.bias_of(view.producers.get(head.source))
    product = view.producers.get(parts[0]) if parts is not None else None
    if parts is None or product is None or product.op_type != "MatMul":
        return head.source, None
    return parts[0], view.constant(parts[1])


def _replace_inputs(model: ModelProto) -> None:
    remove_dead(model)
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    shapes = {name: ["tokens"] for name in (*IDS, POSITION_IDS)}
    shapes[CUMULATIVE_LENGTHS] = ["rows_and_end"]
    shapes[TOKEN_OFFSET] = ["rows", "length"]
    if MASK in read:
        reader = next(node for node in graph.node if MASK in node.input)
        raise NotPackable(f"{reader.op_type} {reader.name} reads the mask, as other poolings than the mean do")
    del graph.input[:]
    for name, dims in shapes.items():
        if name in read:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT32, dims))
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "rows"


def _check_alone(model: ModelProto) -> None:
    """Raises where an operator is left that may look at more than one token, or at a third axis."""
    view = GraphView(model)
    for node in model.graph.node:
        if is_ours(node):
            continue
        if node.op_type == "LayerNormalization":
            if attribute(node, "axis", -1) not in (-1, 2):
                raise NotPackable(f"{node.name} normalises another axis than the last")
            for item in node.attribute:
                if item.name == "axis":
                    item.i = -1
        elif node.op_type not in _ALONE or not _IN_WHICH_WAY.get(node.op_type, _always)(view, node):
            raise NotPackable(f"{node.op_type} {node.name} may read other tokens")
        if any(view.is_constant(name) and len(view.dims(name) or ()) > 2 for name in node.input):
            raise NotPackable(f"{node.op_type} {node.name} has a constant of three axes")


def _always(view: GraphView, node: NodeProto) -> bool:
    return True


def _looks_up(view: GraphView, node: NodeProto) -> bool:
    """Rows of a table, or of tensors at the first tokens."""
    of_axis_0 = not attribute(node, "axis", 0)
    return of_axis_0 and (view.is_constant(node.input[0]) or node.input[1] == BEGINS)


def _is_ours(view: GraphView, node: NodeProto) -> bool:
    return is_ours(node)


def _last_axis(view: GraphView, node: NodeProto) -> bool:
    return attribute(node, "axis", 0) in (-1, 1)


_IN_WHICH_WAY: Mapping[str, Callable[[GraphView, NodeProto], bool]] = {
    "Concat": _last_axis,
    "Gather": _looks_up,
    "Slice": _is_ours,
    "Unsqueeze": _is_ours,
}
_ALONE = frozenset(
    [
        *("Add", "And", "BiasGelu", "Cast", "Clip", "Concat", "Div", "Erf", "Gather", "Gemm", "Identity", "Less"),
        *("LessOrEqual", "MatMul", "Mul", ATTENTION, "Pow", "ReduceL2", "Relu", "Shape", "SkipLayerNormalization"),
        *("Slice", "Sqrt", "Sub", "Tanh", "Unsqueeze"),
    ]
)
"""Operators that treat tokens (or, behind pooling, rows) alone, in the way in which encoders use them."""
