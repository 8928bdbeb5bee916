from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from pairwire.export.checkpoint.checkpoint import Checkpoint, encode, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.config import Precision, Sensitivity
from pairwire.export.int8 import quantize
from pairwire.export.int8.calibrate import observe
from pairwire.export.int8.findings import as_lines
from pairwire.export.passes import ALWAYS, fold_bias, sequence_major
from pairwire.export.progress import quiet_libraries
from pairwire.export.texts import Texts, calibration_texts
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.errors import ConfigInvalid
from tests import checkpoints, graphs, packing


@pytest.fixture(scope="module")
def checkpoint(cross_encoder_checkpoint: Path) -> Checkpoint:
    source = find_source(str(cross_encoder_checkpoint))
    with quiet_libraries():
        return open_checkpoint(source, source.directory)


@pytest.fixture(scope="module")
def graph(plain_graph: packing.Graph) -> ModelProto:
    model = plain_graph("bert")
    for rewrite in (*ALWAYS, fold_bias.apply, sequence_major.apply):
        rewrite(model)
    return model


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts(calibration_texts(ModelKind.CROSS_ENCODER).inputs[:24], "built-in")


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


def test_int8_graph_scores_close_to_float32(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    done = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    model, reports = done.model, done.reports
    batch = served_batch(checkpoint)
    assert np.abs(graphs.run(model, batch) - graphs.run(graph, batch)).max() < 0.25  # logits of deviation 1.5
    assert {report.name: report.rewritten for report in reports}["quantize_matmul"] == 12


def test_int8_score_does_not_depend_on_batch_mates(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model = quantize.quantize(graph, Precision.INT8, checkpoint, texts).model
    batch = served_batch(checkpoint)
    together = graphs.run(model, batch)
    alone = np.concatenate(
        [graphs.run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(together))]
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_tokens_with_their_own_scales_score_as_close_and_as_alone(
    checkpoint: Checkpoint, graph: ModelProto, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "THRIFT", 0.0)  # so small a model never has the time for it
    done = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    counts = {report.name: report.rewritten for report in done.reports}
    assert counts["scale_tokens"] > 2
    assert counts["centre_channels"] > 2
    assert done.findings is not None
    assert sum(tensor.by_token for tensor in done.findings.tensors) == counts["scale_tokens"]
    assert sum("| yes | token |" in line for line in as_lines(done.findings)) > 0
    batch = served_batch(checkpoint)
    together = graphs.run(done.model, batch)
    assert np.abs(together - graphs.run(graph, batch)).max() < 0.25
    alone = [graphs.run(done.model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(together))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-3)


def test_dynamic_score_depends_on_batch_mates(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    done = quantize.quantize(graph, Precision.INT8_DYNAMIC, checkpoint, texts)
    model, reports = done.model, done.reports
    batch = served_batch(checkpoint)
    together = graphs.run(model, batch)
    alone = np.concatenate(
        [graphs.run(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(len(together))]
    )
    assert np.abs(together - alone).max() > 1e-4
    assert [report.name for report in reports] == ["quantize_matmul", "quantize_embedding"]


def test_attention_products_stay_float(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model = quantize.quantize(graph, Precision.INT8, checkpoint, texts).model
    constants = initializers(model)
    left = [node for node in model.graph.node if node.op_type == "FusedMatMul"]
    assert len(left) == 4
    assert not any(node.input[1] in constants for node in left)


def test_no_float_copy_of_the_weights_is_left(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    model = quantize.quantize(graph, Precision.INT8, checkpoint, texts).model
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


def test_tensor_that_no_text_reaches_stays_in_float(checkpoint: Checkpoint, graph: ModelProto) -> None:
    """As the tokens of an expert that is never asked."""
    model = packing.copy(graph)
    first, *_ = quantize.find_products(model)
    weights = np.ones((32, 4), np.float32)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (("none", np.array([], np.int64)), ("expert", weights))
    )
    model.graph.node.extend(
        [
            helper.make_node("Gather", [first.source, "none"], ["nobody"], axis=1),
            helper.make_node("MatMul", ["nobody", "expert"], ["unread"]),
        ]
    )
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, checkpoints.PAIRS, checkpoint)
    seen = observe(model, {first.source: 32, "nobody": 32}, encoder, rows)
    assert set(seen) == {first.source}


def test_calibration_rows_are_seen_without_padding(checkpoint: Checkpoint, graph: ModelProto) -> None:
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, checkpoints.PAIRS, checkpoint)
    (first, *_) = [product.source for product in quantize.find_products(graph)]
    every = observe(graph, {first: 32}, encoder, rows)[first]
    assert every.low.shape == every.high.shape == (2, 32)
    assert len(every.sample) == int(rows.lengths.sum())  # so few that all are kept
    np.testing.assert_array_equal(every.low.min(axis=0), every.sample.min(axis=0))
    one = observe(graph, {first: 32}, encoder, encode(encoder, checkpoints.PAIRS[:1], checkpoint))[first]
    assert (every.low[0] <= one.low[0]).all()
    np.testing.assert_array_equal(one.high[0], one.high[1])  # one text has no other half
    np.testing.assert_allclose(one.high.max(axis=0), one.sample.max(axis=0))


def test_rounding_leaves_no_error_on_average_over_the_calibration_texts(
    checkpoint: Checkpoint, graph: ModelProto, texts: Texts
) -> None:
    done = quantize.quantize(graph, Precision.INT8, checkpoint, texts)
    model, reports = done.model, done.reports
    (product, *_) = quantize.find_products(graph)
    encoder = checkpoint.text_encoder()
    rows = encode(encoder, texts.inputs, checkpoint)
    asked = {product.result: product.weights.shape[1]}
    exact, rounded = (observe(each, asked, encoder, rows)[product.result].sample for each in (graph, model))
    off = rounded - exact
    assert np.abs(off.mean(axis=0)).max() < off.std() / 4
    assert {report.name: report.rewritten for report in reports}["correct_bias"] == 12


def test_every_tensor_is_reported_with_its_error(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    findings = quantize.quantize(graph, Precision.INT8, checkpoint, texts).findings
    assert findings is not None
    assert not findings.layers
    attention = [tensor for tensor in findings.tensors if "attention/self/" in tensor.role]
    assert {tensor.layer for tensor in attention} == {"layer 0", "layer 1"}
    assert sorted(attention[0].role.removeprefix("attention/self/").split(", ")) == ["key", "query", "value"]
    assert all(0 < tensor.error <= tensor.plain < 1 for tensor in findings.tensors if tensor.layer.startswith("layer"))
    assert sum(tensor.error < tensor.plain for tensor in findings.tensors) > len(findings.tensors) / 2
    calibration = findings.as_calibration()
    assert calibration.method == "minmax, searched"
    assert 0 < calibration.mean_error < calibration.plain_error
    assert f"{len(findings.tensors)} tensors" in calibration.search
    assert not calibration.float_layers


def test_the_layers_that_cost_most_stay_in_float(checkpoint: Checkpoint, graph: ModelProto, texts: Texts) -> None:
    whole = quantize.quantize(graph, Precision.INT8, checkpoint, texts, Sensitivity(measure=True))
    assert whole.findings is not None
    costs = {layer.layer: layer.mean_diff for layer in whole.findings.layers}
    assert {"layer 0", "layer 1"} <= set(costs)
    assert all(layer.max_diff >= layer.mean_diff > 0 for layer in whole.findings.layers)
    worst = max(costs, key=lambda name: costs[name])
    kept = quantize.quantize(graph, Precision.INT8, checkpoint, texts, Sensitivity(keep_float=1), whole.findings.layers)
    assert kept.findings is not None
    assert kept.findings.float_layers == [worst]
    assert any("left in float32" in line and worst in line for line in as_lines(kept.findings))
    left = [tensor for tensor in whole.findings.tensors if tensor.layer == worst]
    assert len(operators(kept.model, "QuantizeLinear")) == len(operators(whole.model, "QuantizeLinear")) - len(left)


def test_a_model_of_which_nothing_would_be_int8_is_refused(
    checkpoint: Checkpoint, graph: ModelProto, texts: Texts
) -> None:
    with pytest.raises(
        ConfigInvalid, match=r"keep-float: 9 is too many; \d layers were measured, and one must be int8"
    ):
        quantize.quantize(graph, Precision.INT8, checkpoint, texts, Sensitivity(keep_float=9))


def operators(model: ModelProto, kind: str) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == kind]
