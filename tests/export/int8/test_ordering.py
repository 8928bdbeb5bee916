from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from pairwire.export.int8.calibrate import Seen
from pairwire.export.int8.ordering import find_orders, reorder
from pairwire.export.int8.products import find_products
from tests import graphs

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


HIDDEN, WIDE = 8, 32
CONSTANTS = {
    "w1": RNG.normal(size=(HIDDEN, WIDE)).astype(np.float32),
    "gate": RNG.normal(size=(HIDDEN, WIDE)).astype(np.float32),
    "b1": RNG.normal(size=WIDE).astype(np.float32),
    "w2": RNG.normal(size=(WIDE, HIDDEN)).astype(np.float32),
    "b2": RNG.normal(size=HIDDEN).astype(np.float32),
    "half": np.array(0.5, np.float32),
    "vector": RNG.normal(size=WIDE).astype(np.float32),
}
X = RNG.normal(size=(2, 3, HIDDEN)).astype(np.float32)
make = helper.make_node


def first() -> list[NodeProto]:
    return [make("MatMul", ["x", "w1"], ["m1"]), make("Add", ["b1", "m1"], ["h"])]


def last(hidden: str, result: str = "y") -> list[NodeProto]:
    return [make("MatMul", [hidden, "w2"], ["m2"]), make("Add", ["m2", "b2"], [result])]


def gelu() -> list[NodeProto]:
    middle = [make("Erf", ["h"], ["e"]), make("Mul", ["h", "e"], ["he"]), make("Mul", ["he", "half"], ["a"])]
    return [*first(), *middle, *last("a")]


def gated() -> list[NodeProto]:
    gate = [make("MatMul", ["x", "gate"], ["g"]), make("Sigmoid", ["g"], ["s"]), make("Mul", ["g", "s"], ["silu"])]
    return [*first(), *gate, make("Mul", ["silu", "h"], ["a"]), *last("a")]


def scaled_by_channel() -> list[NodeProto]:
    return [*first(), make("Mul", ["h", "vector"], ["a"]), *last("a")]


def mixed() -> list[NodeProto]:
    return [*first(), make("Softmax", ["h"], ["a"], axis=-1), *last("a")]


def read_elsewhere() -> list[NodeProto]:
    both = [make("ReduceSum", ["h"], ["sum"], keepdims=1), make("Add", ["z", "sum"], ["y"])]
    return [*first(), make("Relu", ["h"], ["a"]), *last("a", "z"), *both]


def model_of(nodes: list[NodeProto]) -> ModelProto:
    read = {name for node in nodes for name in node.input}
    return graphs.toy(nodes, {key: value for key, value in CONSTANTS.items() if key in read}, 3, hidden=HIDDEN)


def seen_of(sizes: np.ndarray) -> Seen:
    high = np.stack([sizes, sizes / 2]).astype(np.float32)
    return Seen(-high, high, (high, high))


def seen() -> dict[str, Seen]:
    return {"x": seen_of(np.ones(HIDDEN)), "a": seen_of(np.random.default_rng(1).uniform(size=WIDE))}


@pytest.mark.parametrize("nodes", [gelu, gated])
def test_large_channels_come_last_and_the_result_stays(nodes: Callable[[], list[NodeProto]]) -> None:
    model = model_of(nodes())
    expected = graphs.run(model, {"x": X})
    observed = seen()
    (order,) = find_orders(model, find_products(model), observed)
    assert order.source == "a"
    assert order.makers == ({"m1", "g"} if nodes is gated else {"m1"})
    assert (np.diff(order.seen(observed)["a"].largest) >= 0).all()
    products = reorder(model, find_products(model), [order])
    np.testing.assert_allclose(graphs.run(model, {"x": X}), expected, rtol=1e-4, atol=1e-5)
    by_name = {product.name: product for product in find_products(model)}
    assert all((by_name[product.name].weights == product.weights).all() for product in products)
    np.testing.assert_array_equal(by_name["m2"].weights, CONSTANTS["w2"][order.order])
    assert not np.array_equal(by_name["m1"].weights, CONSTANTS["w1"])


@pytest.mark.parametrize("nodes", [scaled_by_channel, mixed, read_elsewhere])
def test_channels_stay_where_something_else_knows_their_places(nodes: Callable[[], list[NodeProto]]) -> None:
    model = model_of(nodes())
    assert not find_orders(model, find_products(model), seen())


def test_a_tensor_that_is_multiplied_into_a_wider_one_keeps_its_order() -> None:
    model = model_of([*first(), make("Relu", ["h"], ["y"])])
    assert not find_orders(model, find_products(model), {"x": seen_of(RNG.uniform(size=HIDDEN))})
