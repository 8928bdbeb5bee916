from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper

from pairwire.export.passes import constant_reshapes, prune_last_layer, sequence_major, unpadded_attention
from pairwire.export.passes.view import add_constant
from tests import graphs, packing
from tests.checkpoints import ARCHITECTURES
from tests.export.passes.test_prune_last_layer import attention_layer
from tests.export.passes.test_sequence_major import OTHER_FORM

LAYERS = 2


LEFT_ALONE = ("distilbert", "mpnet", *OTHER_FORM)
"""DistilBERT masks with Where, MPNet adds a bias by distance, the others are not in the form of sequence_major."""
FROM = 8
"""The small checkpoints read no 256 tokens."""


def _feeds(length: int, *, padded: bool, rows: int = 3) -> dict[str, npt.NDArray[np.int64]]:
    feeds = graphs.padded_batch(rows=rows, length=length)
    if not padded:
        feeds["attention_mask"] = np.ones_like(feeds["attention_mask"])
    return feeds


@pytest.mark.parametrize("what", [*ARCHITECTURES, "cls", "mean"])
def test_results_stay_the_same_padded_or_not_long_or_short(what: str, plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph(what)
    constant_reshapes.apply(model)
    prune_last_layer.apply(model)
    sequence_major.apply(model)
    before = ModelProto()
    before.CopyFrom(model)
    report = unpadded_attention.apply(model, unpadded_from=FROM)
    assert report.rewritten == (0 if what in LEFT_ALONE else LAYERS), report.reason
    assert report.reason == ("2 of 2 attentions have another form" if what in LEFT_ALONE else "")
    # DeBERTa brings two of its own.
    assert graphs.kinds(model).count("If") - graphs.kinds(before).count("If") == report.rewritten
    for length, padded, rows in ((24, True, 3), (24, False, 3), (24, False, 1), (24, True, 1), (6, False, 1)):
        feeds = _feeds(length, padded=padded, rows=rows)
        np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), atol=1e-5)


def test_the_fused_kernel_runs_for_one_long_unpadded_row_only(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    constant_reshapes.apply(model)
    sequence_major.apply(model)
    unpadded_attention.apply(model, unpadded_from=FROM)
    model.graph.output.append(helper.make_tensor_value_info(unpadded_attention.UNPADDED, TensorProto.BOOL, []))
    chosen = {
        (rows, length, padded): bool(graphs.run_all(model, _feeds(length, padded=padded, rows=rows))[-1])
        for rows in (1, 2)
        for length in (7, 8, 24)
        for padded in (False, True)
    }
    assert {case for case, fused in chosen.items() if fused} == {(1, 8, False), (1, 24, False)}


def test_what_adds_more_than_a_mask_is_left_alone(plain_graph: Callable[[str], ModelProto]) -> None:
    """As a relative position bias would, which the fused kernel knows nothing of."""
    model = plain_graph("bert")
    constant_reshapes.apply(model)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    add = next(node for node in model.graph.node if node.output[0] == softmax.input[0])
    at = list(model.graph.node).index(add)
    add_constant(model, "bias", np.array(0.5, dtype=np.float32))
    model.graph.node.insert(at, helper.make_node("Add", [add.input[1], "bias"], ["biased"], name="biased"))
    model.graph.node[at + 1].input[1] = "biased"
    sequence_major.apply(model)
    report = unpadded_attention.apply(model, unpadded_from=FROM)
    assert report.rewritten == LAYERS - 1
    assert report.reason == "1 of 2 attentions add more than a mask of padding"


def test_a_window_that_shows_in_long_rows_only_is_left_alone(plain_graph: Callable[[str], ModelProto]) -> None:
    """As local attention adds, and a probe of a few tokens would not notice."""
    model = plain_graph("bert")
    constant_reshapes.apply(model)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    add = next(node for node in model.graph.node if node.output[0] == softmax.input[0])
    n = helper.make_node
    for name, value in (("axis", 1), ("zero", 0), ("window", 60)):
        add_constant(model, name, np.array(value))
    nodes = [
        n("Shape", ["attention_mask"], ["dims"]),
        n("Gather", ["dims", "axis"], ["length"]),
        n("Greater", ["length", "window"], ["beyond"]),
        n("Cast", ["beyond"], ["bias"], to=TensorProto.FLOAT),
        n("Add", [add.input[1], "bias"], ["windowed"]),
    ]
    at = list(model.graph.node).index(add)
    for node in reversed(nodes):
        model.graph.node.insert(at, node)
    add.input[1] = "windowed"
    sequence_major.apply(model)
    assert unpadded_attention.apply(packing.copy(model), unpadded_from=FROM, longest=60).rewritten == LAYERS
    assert unpadded_attention.apply(model, unpadded_from=FROM, longest=61).rewritten == LAYERS - 1


def test_graph_without_a_mask_is_left_alone() -> None:
    assert unpadded_attention.apply(attention_layer()).reason == "the graph has no input attention_mask"
