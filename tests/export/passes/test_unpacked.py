from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper

from pairwire.export.passes import half, unpacked
from tests import graphs, packing

HEADS, WIDTH = 2, 4
HIDDEN = HEADS * WIDTH
SCALE = 0.7
LENGTHS = (3, 1, 5)
Matrix = npt.NDArray[np.float32]


def attention(kind: int = TensorProto.FLOAT) -> ModelProto:
    """One PackedMultiHeadAttention on q, k and v."""
    biases = np.random.default_rng(1).normal(size=3 * HIDDEN).astype(np.float32)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    node = helper.make_node(
        "PackedMultiHeadAttention",
        ["q", "k", "v", "biases", "token_offset", "cumulative_lengths"],
        ["y"],
        domain="com.microsoft",
        num_heads=HEADS,
        scale=SCALE,
    )
    model = graphs.toy([node], {"biases": biases.astype(dtype)}, 2)
    model.graph.output[0].type.tensor_type.elem_type = kind
    make = helper.make_tensor_value_info
    del model.graph.input[:]
    model.graph.input.extend(make(name, kind, ["tokens", HIDDEN]) for name in "qkv")
    model.graph.input.append(make("input_ids", TensorProto.INT32, ["tokens"]))
    model.graph.input.append(make("cumulative_lengths", TensorProto.INT32, ["rows_and_end"]))
    model.graph.input.append(make("token_offset", TensorProto.INT32, ["rows", "length"]))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def batch(*, empty: int = 0) -> dict[str, npt.NDArray[np.int32] | Matrix]:
    rng = np.random.default_rng(0)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    feeds = packing.feeds(dict.fromkeys(("input_ids", "token_type_ids", "attention_mask"), mask), empty=empty, fill=())
    vectors = {name: rng.normal(size=(sum(LENGTHS), HIDDEN)).astype(np.float32) for name in "qkv"}
    return {**feeds, **vectors}


def expected(feeds: dict[str, npt.NDArray[np.int32] | Matrix]) -> Matrix:
    """The specification in numpy: each row by itself, each head by itself."""
    biases = np.random.default_rng(1).normal(size=3 * HIDDEN).astype(np.float32)
    q, k, v = (feeds[name] + part for name, part in zip("qkv", np.split(biases, 3), strict=True))
    result = np.zeros_like(q)
    for end, number in zip(np.cumsum(LENGTHS), LENGTHS, strict=True):
        row = slice(end - number, end)
        for head in range(HEADS):
            part = slice(head * WIDTH, (head + 1) * WIDTH)
            weights = np.exp(q[row, part] @ k[row, part].T * SCALE)
            result[row, part] = weights / weights.sum(axis=1, keepdims=True) @ v[row, part]
    return result


@pytest.mark.parametrize("empty", [0, 2])
def test_each_row_attends_to_its_own_tokens_only(empty: int) -> None:
    model = attention()
    unpacked.apply(model)
    assert "PackedMultiHeadAttention" not in graphs.kinds(model)
    feeds = batch(empty=empty)
    np.testing.assert_allclose(graphs.run(model, feeds), expected(feeds), atol=1e-5)


def test_only_the_first_numbers_of_token_offset_are_read() -> None:
    model = attention()
    unpacked.apply(model)
    feeds = batch()
    feeds["token_offset"].reshape(-1)[sum(LENGTHS) :] = 0
    np.testing.assert_allclose(graphs.run(model, feeds), expected(feeds), atol=1e-5)


def test_attention_in_float16_stays_in_float16() -> None:
    model = attention(TensorProto.FLOAT16)
    unpacked.apply(model)
    feeds = batch()
    halves = {name: value.astype(np.float16) if name in "qkv" else value for name, value in feeds.items()}
    result = graphs.run(model, halves)  # type: ignore[arg-type]  # float16 is what this is about
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, expected(feeds), atol=0.01)


@pytest.mark.parametrize("what", ["bert", "mean"])
def test_packed_graph_of_float16_runs_too(what: str, plain_graph: packing.Graph) -> None:
    model = plain_graph(what)
    packing.fuse(model)
    packing.pack(model)
    expected = packing.run(model, graphs.padded_batch())
    half.apply(model)
    here = packing.copy(model)
    unpacked.apply(here)
    assert graphs.kinds(here).count("MultiHeadAttention") == 2
    assert packing.close(packing.run(model, graphs.padded_batch()), expected, tolerance=0.005)


def test_graph_without_packed_attention_is_left_alone() -> None:
    model = graphs.toy([helper.make_node("Relu", ["x"], ["y"])], {}, 3)
    before = model.SerializeToString()
    unpacked.apply(model)
    assert model.SerializeToString() == before
