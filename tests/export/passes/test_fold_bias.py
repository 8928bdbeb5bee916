from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from pairwire.export.passes import constant_reshapes, fold_bias, prune_last_layer, sequence_major
from pairwire.export.passes.view import add_constant
from tests import graphs
from tests.checkpoints import ARCHITECTURES
from tests.export.passes.test_prune_last_layer import attention_layer
from tests.export.passes.test_sequence_major import OTHER_FORM

LAYERS = 2


def _before(model: ModelProto, *, prune: bool = True) -> ModelProto:
    """The graph as the pass finds it, with biases that matter: those of the checkpoints are zero."""
    constant_reshapes.apply(model)
    if prune:
        prune_last_layer.apply(model)
    graphs.disturb_biases(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


@pytest.mark.parametrize("prune", [True, False])
@pytest.mark.parametrize("what", [*ARCHITECTURES, "cls", "mean"])
def test_results_stay_the_same_but_for_rounding(
    what: str, prune: bool, plain_graph: Callable[[str], ModelProto]
) -> None:
    model = plain_graph(what)
    before = _before(model, prune=prune)
    report = fold_bias.apply(model)
    found = 0 if what in OTHER_FORM else 2 * LAYERS
    assert report.rewritten == found
    assert report.reason == ("" if found else "4 of 4 biases are not there or stand elsewhere")
    assert graphs.kinds(before).count("Add") - graphs.kinds(model).count("Add") == found
    for rows, length in ((6, 24), (1, 24), (3, 2)):
        feeds = graphs.padded_batch(rows=rows, length=length)
        np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), rtol=1e-5, atol=1e-5)


def test_attention_is_still_found_by_the_passes_that_follow(plain_graph: Callable[[str], ModelProto]) -> None:
    model = plain_graph("bert")
    before = _before(model)
    fold_bias.apply(model)
    assert sequence_major.apply(model).rewritten == LAYERS
    feeds = graphs.padded_batch()
    np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), rtol=1e-5, atol=1e-5)


def test_scores_that_are_multiplied_by_more_than_a_number_keep_the_bias_of_their_keys(
    plain_graph: Callable[[str], ModelProto],
) -> None:
    """Q . b is the same for every key only as long as keys are treated alike."""
    model = plain_graph("bert")
    _before(model)
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    at = list(model.graph.node).index(softmax)
    factors = np.linspace(0.5, 1.5, 24, dtype=np.float32)
    add_constant(model, "factors", factors)
    model.graph.node.insert(at, helper.make_node("Mul", [softmax.input[0], "factors"], ["uneven"], name="uneven"))
    model.graph.node[at + 1].input[0] = "uneven"
    before = ModelProto()
    before.CopyFrom(model)
    report = fold_bias.apply(model)
    assert report.rewritten == 2 * LAYERS - 1
    assert report.reason == "1 of 4 biases are not there or stand elsewhere"
    feeds = graphs.padded_batch(length=24)
    np.testing.assert_allclose(graphs.run(model, feeds), graphs.run(before, feeds), rtol=1e-5, atol=1e-5)


def test_layer_of_another_form_is_left_alone() -> None:
    model = attention_layer()
    before = ModelProto()
    before.CopyFrom(model)
    report = fold_bias.apply(model)
    if not report.rewritten:
        assert report.reason
        assert model.SerializeToString() == before.SerializeToString()
