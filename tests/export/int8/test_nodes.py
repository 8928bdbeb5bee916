from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper

from pairwire.export.int8.coding import Way
from pairwire.export.int8.nodes import Int8Nodes
from pairwire.export.int8.products import find_products
from pairwire.export.int8.rounding import quantize_weights
from tests import graphs

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


INPUTS, OUTPUTS = 32, 24
WEIGHTS = RNG.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
BIAS = RNG.normal(size=OUTPUTS).astype(np.float32)
DIVISORS = RNG.uniform(0.5, 2, size=INPUTS).astype(np.float32)
X = (RNG.normal(size=(3, 5, INPUTS)) + np.linspace(-2, 2, INPUTS)).astype(np.float32)

WAYS = {
    "plain": Way(),
    "balanced": Way(0.5, DIVISORS),
    "centred": Way(0.5, DIVISORS, centred=True),
    "only centred": Way(centred=True),
    "by token": Way(by_token=True),
    "centred, by token": Way(0.5, DIVISORS, centred=True, by_token=True),
    "picked": Way(0.5, DIVISORS, np.array([3, 20])),
    "slice": Way(None, None, np.array([30, 31])),
    "one channel": Way(None, None, np.array([0])),
}


def product() -> ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    return graphs.toy(nodes, {"w": WEIGHTS, "b": BIAS}, 3, hidden=INPUTS)


def quantised(way: Way) -> tuple[ModelProto, np.ndarray]:
    """The product in int8, and what it must give for ``X``, by the code's own arithmetic."""
    model, flat = product(), X.reshape(-1, INPUTS)
    coding = way.code(flat.min(axis=0), flat.max(axis=0), flat.mean(axis=0))
    small, scales = quantize_weights(coding.weights(WEIGHTS))
    nodes = Int8Nodes(model)
    nodes.static("x", coding, find_products(model), [(small, scales, BIAS)])
    nodes.finish()
    expected = coding.decoded(flat) @ (small * scales) + BIAS + flat[:, way.apart] @ WEIGHTS[way.apart]
    return model, expected.reshape(*X.shape[:2], OUTPUTS)


@pytest.mark.parametrize("name", WAYS)
def test_nodes_compute_what_the_code_says(name: str) -> None:
    model, expected = quantised(WAYS[name])
    # A value between two steps may fall to either side, by one step of one channel.
    assert np.abs(graphs.run(model, {"x": X}) - expected).max() < 0.06
    np.testing.assert_allclose(np.median(np.abs(graphs.run(model, {"x": X}) - expected)), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["by token", "centred, by token"])
def test_a_token_has_the_same_product_whatever_stands_beside_it(name: str) -> None:
    model, _ = quantised(WAYS[name])
    beside = X.copy()
    beside[1:] *= 1e4
    np.testing.assert_array_equal(graphs.run(model, {"x": beside})[0], graphs.run(model, {"x": X[:1]})[0])


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30])
def test_a_token_of_zeros_or_nearly_gives_the_bias_alone(size: float) -> None:
    model, _ = quantised(Way(by_token=True))
    x = X.copy()
    x[1] = x[2, 4] = size
    result = graphs.run(model, {"x": x})
    np.testing.assert_allclose(result[1], np.broadcast_to(BIAS, result[1].shape), atol=1e-6)
    np.testing.assert_allclose(result[2, 4], BIAS, atol=1e-6)
    np.testing.assert_array_equal(result[0], graphs.run(model, {"x": X})[0])


def test_neighbours_are_cut_off_as_a_slice_and_others_picked() -> None:
    for name, cut, picked in (("slice", 1, 0), ("one channel", 1, 0), ("picked", 0, 1)):
        kinds = graphs.kinds(quantised(WAYS[name])[0])
        assert (kinds.count("Slice"), kinds.count("Gather")) == (cut, picked), name


def test_products_of_one_tensor_share_its_codes() -> None:
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}/y"]) for name in ("v", "w")]
    nodes.append(helper.make_node("Concat", ["v/y", "w/y"], ["y"], axis=-1))
    model = graphs.toy(nodes, {"v": WEIGHTS, "w": -WEIGHTS}, 3, hidden=INPUTS)
    flat = X.reshape(-1, INPUTS)
    coding = Way(by_token=True).code(flat.min(axis=0), flat.max(axis=0), flat.mean(axis=0))
    rounded = [(*quantize_weights(sign * WEIGHTS), sign * BIAS) for sign in (1, -1)]
    writer = Int8Nodes(model)
    writer.static("x", coding, find_products(model), rounded)
    writer.finish()
    result = graphs.run(model, {"x": X})
    np.testing.assert_allclose(result[..., :OUTPUTS], -result[..., OUTPUTS:], atol=1e-5)
    assert graphs.kinds(model).count("QuantizeLinear") == graphs.kinds(model).count("ReduceMax") == 1
