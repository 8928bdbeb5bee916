from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from pairwire.export import quantize
from pairwire.export.calibrate import ChannelRange, channel_ranges
from pairwire.export.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.config import Kind, Precision
from pairwire.export.graph import export_graph
from pairwire.export.parity import encode
from pairwire.export.passes import ALWAYS, fold_bias, sequence_major
from pairwire.export.progress import quiet_libraries
from pairwire.export.source import find_source
from pairwire.export.texts import Texts, calibration_texts
from tests import checkpoints, graphs


@pytest.fixture(scope="module")
def checkpoint(cross_encoder_checkpoint: Path) -> Checkpoint:
    source = find_source(str(cross_encoder_checkpoint))
    with quiet_libraries():
        return open_checkpoint(source, source.directory)


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    with quiet_libraries():
        model = export_graph(checkpoint, tmp_path_factory.mktemp("workspace"))
    for rewrite in (*ALWAYS, fold_bias.apply, sequence_major.apply):
        rewrite(model)
    return model


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts(calibration_texts(Kind.CROSS_ENCODER).inputs[:24], "built-in")


def served_batch(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """One padded batch of real pairs."""
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, checkpoints.PAIRS, checkpoint)
    length = int(rows.lengths.max())
    batch = encoder.assemble([(rows, index) for index in range(len(rows))], length)
    mask = np.arange(length) < batch.lengths[:, None]
    values = {"input_ids": batch.input_ids, "attention_mask": mask, "token_type_ids": batch.token_type_ids}
    return {name: value.astype(np.int64) for name, value in values.items()}


def initializers(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_weights_are_off_by_at_most_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    small, scales = quantize.quantize_weights(weights)
    assert small.dtype == np.int8
    assert np.abs(small * scales - weights).max() <= scales.max() / 2 + 1e-7


def test_column_of_zeros_stays_zero() -> None:
    small, scales = quantize.quantize_weights(np.zeros((4, 2), np.float32))
    assert not small.any()
    assert np.isfinite(scales).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-0.17, 25.0)])
def test_activation_range_covers_its_ends_and_zero(low: float, high: float) -> None:
    scale, zero = quantize.activation_scale(low, high)
    steps = np.arange(256, dtype=np.float64) - int(zero)
    assert 0.0 in steps * scale
    assert np.abs(steps * scale - low).min() <= scale
    assert np.abs(steps * scale - high).min() <= scale


def test_balance_makes_large_channels_smaller_and_keeps_the_product() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * np.array([1, 1, 1, 1, 1, 40])
    weights = rng.normal(size=(6, 3)).astype(np.float32)
    divisors = quantize.balance(np.abs(x).max(axis=0).astype(np.float32), weights)
    assert np.ptp(np.abs(x / divisors).max(axis=0)) < np.ptp(np.abs(x).max(axis=0)) / 5
    np.testing.assert_allclose((x / divisors) @ (weights * divisors[:, None]), x @ weights, rtol=1e-5)
    assert np.exp(np.log(divisors).mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        ([1, 1, 20, 1, 1, 1, 1, 1, 1, 1], [2]),
        ([9, 1, 20, 1, 1, 1, 1, 1, 1, 1], [0, 2]),
        ([1.0] * 10, []),
        ([1.2, 1.1, 1.0, 1.05, 1.3, 1, 1, 1, 1, 1], []),
        ([20.0] * 9 + [1.0], []),
    ],
)
def test_few_outliers_are_set_apart_and_many_are_not(largest: list[float], expected: list[int]) -> None:
    assert quantize.outliers(np.array(largest, dtype=np.float32)).tolist() == expected


def test_int8_graph_scores_close_to_float32(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model, reports = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    batch = served_batch(checkpoint)
    assert np.abs(graphs.run(model, batch) - graphs.run(graph, batch)).max() < 0.25  # logits of deviation 1.5
    assert {report.name: report.rewritten for report in reports}["quantize_matmul"] == 12


def test_int8_score_does_not_depend_on_batch_mates(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model, _ = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    batch = served_batch(checkpoint)
    together = graphs.run(model, batch)
    alone = np.concatenate(
        [graphs.run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(together))]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_dynamic_score_depends_on_batch_mates(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model, reports = quantize.quantize(graph, Precision.INT8_DYNAMIC, checkpoint, texts)
    batch = served_batch(checkpoint)
    together = graphs.run(model, batch)
    alone = np.concatenate(
        [graphs.run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(together))]
    )
    assert np.abs(together - alone).max() > 1e-4
    assert [report.name for report in reports] == ["quantize_matmul", "quantize_embedding"]


def test_attention_products_stay_float(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model, _ = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    constants = initializers(model)
    left = [node for node in model.graph.node if node.op_type == "FusedMatMul"]
    assert len(left) == 4
    assert not any(node.input[1] in constants for node in left)


def test_no_float_copy_of_the_weights_is_left(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model, _ = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    largest = max(v.size for v in initializers(model).values() if v.dtype == np.float32 and v.ndim == 2)
    assert largest <= 301 * 32  # the embedding table, which is too small to be quantised here


def test_quantising_leaves_the_float_graph_alone(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    before = graph.SerializeToString()
    quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    assert graph.SerializeToString() == before


def test_large_embedding_table_becomes_int8_with_a_scale_a_row() -> None:
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(2000, 8)) * rng.uniform(0.01, 10, size=(2000, 1))).astype(np.float32)
    nodes = [helper.make_node("Cast", ["x"], ["ids"], to=7), helper.make_node("Gather", ["table", "ids"], ["y"])]
    model = graphs.toy(nodes, {"table": table}, 4)
    assert quantize.quantize_embeddings(model) == 1
    assert {value.dtype for value in initializers(model).values() if value.size > 2000} == {np.dtype(np.int8)}
    ids = rng.integers(0, 2000, size=(2, 3, 8)).astype(np.float32)
    result, expected = graphs.run(model, {"x": ids}), table[ids.astype(int)]
    steps = np.abs(expected).max(axis=-1, keepdims=True) / 127
    assert (np.abs(result - expected) <= steps / 2 + 1e-6).all()


def test_small_embedding_table_stays_float() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["ids"], to=7), helper.make_node("Gather", ["table", "ids"], ["y"])]
    model = graphs.toy(nodes, {"table": np.ones((512, 8), np.float32)}, 4)
    assert quantize.quantize_embeddings(model) == 0


def outlier_model(outputs: int) -> ModelProto:
    """X [rows, length, 8] times weights with a bias."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["b", "a"], ["y"])]
    weights = rng.normal(size=(8, outputs)).astype(np.float32)
    return graphs.toy(nodes, {"w": weights, "b": rng.normal(size=outputs).astype(np.float32)}, 3)


def test_product_knows_its_bias_on_either_side_of_the_add() -> None:
    (product,) = quantize.find_products(outlier_model(4))
    assert product.source == "x"
    assert product.result == "y"
    assert product.bias is not None
    assert product.bias.shape == (4,)


def test_calibration_rows_are_seen_without_padding(checkpoint: Checkpoint, graph: ModelProto) -> None:
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, checkpoints.PAIRS, checkpoint)
    (first, *_) = [product.source for product in quantize.find_products(graph)]
    all_rows = channel_ranges(graph, [first], encoder, rows)[first]
    assert isinstance(all_rows, ChannelRange)
    assert all_rows.low.shape == (32,)
    one = channel_ranges(graph, [first], encoder, encode(encoder, checkpoints.PAIRS[:1], checkpoint))[first]
    assert (all_rows.low <= one.low).all()
    assert (all_rows.high >= one.high).all()
    np.testing.assert_array_equal(one.largest, np.maximum(np.abs(one.low), np.abs(one.high)))
