"""A graph with most of its layers left out, which costs what they cost: for measuring, not for scores.

A transformer is a chain: there are tensors through which everything has to go that was computed from the tokens. The
operators between two of them are a link; layers are a sequence of links that repeats. A few of the repetitions stay,
and what read the last one's output reads theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper

from .passes.view import GraphView, add_constant, attribute, reads, remove_dead, sort_nodes

KEPT = 2
"""Layers that stay, of those that are like each other."""
WHOLE_BELOW = 16_000_000
"""Weights of matrix products below which all layers are measured: that takes no longer."""
_MOST_LINKS = 24
"""Links of a layer, at most."""
_TABLE_ROWS = 1024
"""Rows that stay of a longer table."""
_TOKENS = "input_ids"

Signature = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class FewLayers:
    """The shortened graph."""

    model: ModelProto
    kept: int
    """Layers of those that repeat."""
    of: int
    """How many there are."""


def few_layers(model: ModelProto, *, kept: int = KEPT, whole_below: int = WHOLE_BELOW) -> FewLayers | None:
    """A copy of the graph with few of its layers; None where it is small or where no layers are found that repeat."""
    view = GraphView(model)
    if sum(_weights(view, node) for node in model.graph.node) < whole_below:
        return None
    cuts, links = _chain(view)
    start, period, count = _repetition(links)
    if count <= kept:
        return None
    copy = ModelProto()
    copy.CopyFrom(model)
    last, first = cuts[start + count * period], cuts[start + kept * period]
    inside = {view.graph.node[at].output[0] for link in links[start : start + count * period] for at in link.nodes}
    for node in copy.graph.node:
        if node.output[0] not in inside:
            for at, name in enumerate(node.input):
                if name == last:
                    node.input[at] = first
    _shorten_tables(copy)
    sort_nodes(copy)
    remove_dead(copy)
    return FewLayers(copy, kept, count)


def _shorten_tables(model: ModelProto) -> None:
    """Cuts long tables of embeddings: a row costs the same wherever it lies, but files of the graph get small."""
    view = GraphView(model)
    for node in list(model.graph.node):
        dims = view.dims(node.input[0]) if node.op_type == "Gather" and view.is_constant(node.input[0]) else None
        table = None if dims is None or len(dims) != 2 or attribute(node, "axis", 0) else view.constant(node.input[0])
        if table is None or len(table) <= _TABLE_ROWS:
            continue
        rows = add_constant(model, f"{node.output[0]}/rows", np.asarray(_TABLE_ROWS, dtype=np.int64))
        index = helper.make_node("Mod", [node.input[1], rows], [f"{node.output[0]}/row"])
        node.input[0] = add_constant(model, f"{node.output[0]}/table", table[:_TABLE_ROWS])
        node.input[1] = index.output[0]
        model.graph.node.append(index)


@dataclass(frozen=True, slots=True)
class _Link:
    """What is computed between two tensors of the chain."""

    nodes: Sequence[int]
    """Their places in the graph."""
    signature: Signature
    """Operators and shapes of their weights: links with the same one cost the same."""


def _chain(view: GraphView) -> tuple[list[str], list[_Link]]:
    """The tensors that everything goes through, and the links between each two of them."""
    left = Counter(name for node in view.graph.node for name in reads(node))
    carried = {_TOKENS}
    live = {_TOKENS}
    cuts: list[str] = [_TOKENS]
    links: list[_Link] = []
    inside: list[int] = []
    for at, node in enumerate(view.graph.node):
        sources = [name for name in reads(node) if name in carried]
        for name in reads(node):
            left[name] -= 1
        live = {name for name in live if left[name] > 0}
        # What is read of a shape is no token's.
        if sources and node.op_type != "Shape":
            inside.append(at)
            carried.update(node.output)
            live.update(name for name in node.output if left[name] > 0)
        if len(live) == 1 and live != {cuts[-1]} and inside:
            cuts.append(next(iter(live)))
            links.append(_Link(inside, _signature(view, inside)))
            inside = []
    return cuts, links


def _signature(view: GraphView, inside: Sequence[int]) -> Signature:
    return tuple(sorted(_kind(view, view.graph.node[at]) for at in inside))


def _kind(view: GraphView, node: NodeProto) -> tuple[str, ...]:
    shapes = [str(view.dims(name)) for name in node.input if view.is_constant(name)]
    return (node.op_type, node.domain, *shapes)


def _repetition(links: Sequence[_Link]) -> tuple[int, int, int]:
    """Where the longest repetition starts, how many links repeat (as few as can be), and how often they come."""
    best = (0, 1, 0)
    signatures = [link.signature for link in links]
    for period in range(1, min(_MOST_LINKS, len(links)) + 1):
        for start in range(len(links) - period + 1):
            count = 1
            pattern = signatures[start : start + period]
            while signatures[start + count * period : start + (count + 1) * period] == pattern:
                count += 1
            if count > 1 and count * period > best[1] * best[2]:
                best = (start, period, count)
    return best


def _weights(view: GraphView, node: NodeProto) -> int:
    dims = view.dims(node.input[1]) if node.op_type == "MatMul" and view.is_constant(node.input[1]) else None
    return 0 if dims is None or len(dims) != 2 else int(dims[0]) * int(dims[1])
