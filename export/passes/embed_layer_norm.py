"""The sum of embeddings and its normalisation as one operator, in a packed graph.

    before   Gather(words, input_ids) + Gather(types, token_type_ids) + Gather(positions, position_ids), normalised
    after    EmbedLayerNormalization(input_ids, token_type_ids, words, positions, types, gamma, beta, position_ids)

A constant among the summands, the one token type that some models have, goes into the table of positions. Models
without token types have two summands.

Source: com.microsoft.EmbedLayerNormalization, which takes [rows, length] ids: here, one row.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pairwire.server.runtime.packed import POSITION_IDS
from pairwire.v1 import manifest_pb2

from .sequence_major import MICROSOFT
from .view import GraphView, add_constant, attribute, remove_dead, require_domain, sort_nodes

NAME = "embed_layer_norm"
WORDS, TYPES = "input_ids", "token_type_ids"


def apply(model: ModelProto) -> manifest_pb2.PassReport:
    """Rewrites the model in place, after `packed`."""
    view = GraphView(model)
    for norm in model.graph.node:
        tables = _tables(view, norm) if norm.op_type == "LayerNormalization" and len(norm.input) > 2 else None
        if tables is not None:
            _replace(model, view, norm, tables)
            return manifest_pb2.PassReport(name=NAME, rewritten=1)
    return manifest_pb2.PassReport(name=NAME, reason="no normalised sum of word and position embeddings")


def _replace(model: ModelProto, view: GraphView, norm: NodeProto, tables: dict[str, str]) -> None:
    result = norm.output[0]
    positions = tables[POSITION_IDS]
    if "" in tables:
        summed = np.asarray(view.constant(positions)) + np.asarray(view.constant(tables[""]))
        positions = add_constant(model, f"{result}/positions", summed)
    axis = add_constant(model, f"{result}/axis", np.array([0], dtype=np.int64))
    rows = {name: f"{result}/{name}" for name in (WORDS, TYPES, POSITION_IDS) if name in tables}
    nodes = [helper.make_node("Unsqueeze", [name, axis], [row], name=f"{row}/Unsqueeze") for name, row in rows.items()]
    inputs = [rows[WORDS], rows.get(TYPES, ""), tables[WORDS], positions, tables.get(TYPES, "")]
    nodes.append(
        helper.make_node(
            "EmbedLayerNormalization",
            [*inputs, norm.input[1], norm.input[2], "", rows[POSITION_IDS]],
            [f"{result}/row", f"{result}/mask_index"],
            name=f"{result}/EmbedLayerNormalization",
            domain=MICROSOFT,
            epsilon=attribute(norm, "epsilon", 1e-5),
        )
    )
    nodes.append(helper.make_node("Squeeze", [f"{result}/row", axis], [result], name=f"{result}/Squeeze"))
    model.graph.node.remove(norm)
    model.graph.node.extend(nodes)
    require_domain(model, MICROSOFT)
    sort_nodes(model)
    remove_dead(model)


def _tables(view: GraphView, norm: NodeProto) -> dict[str, str] | None:
    """Index -> table of the summands, and a constant summand under ""; None where it is another sum."""
    tables: dict[str, str] = {}
    for name in _summands(view, norm.input[0]):
        node = view.producers.get(name)
        if node is not None and node.op_type == "Identity" and view.is_constant(node.input[0]):
            name, node = node.input[0], None
        if node is None and view.is_constant(name):
            index, table = "", name
        elif node is not None and node.op_type == "Gather" and view.is_constant(node.input[0]):
            index, table = node.input[1], node.input[0]
        else:
            return None
        if index not in (WORDS, TYPES, POSITION_IDS, "") or index in tables:
            return None
        tables[index] = table
    return tables if WORDS in tables and POSITION_IDS in tables else None


def _summands(view: GraphView, name: str) -> list[str]:
    node = view.producers.get(name)
    if node is None or node.op_type != "Add":
        return [name]
    return [summand for source in node.input for summand in _summands(view, source)]
