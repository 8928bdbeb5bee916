from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pairwire.export import (
    CheckpointUnsupported,
    DataInvalid,
    ExportConfig,
    OutputInvalid,
    ParityFailed,
    export_checkpoint,
)
from pairwire.export.progress import Event, StepFinished, StepStarted, quiet_libraries
from pairwire.server.engine.outputs.heads import Activation, activate
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.package import Package, read_package
from pairwire.server.runtime.base import Float32Array
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime
from pairwire.v1 import manifest_pb2, scoring_pb2
from tests import architectures, checkpoints


def logits(package: Package, inputs: list[tuple[str, str]]) -> Float32Array:
    """What a server would compute for the pairs, from the package's files alone."""
    manifest, variant = package.manifest, package.variant()
    rules = TextRules(
        max_length=manifest.max_length,
        pad_token_id=manifest.pad_token_id,
        pad_token_type_id=manifest.pad_token_type_id,
    )
    encoder = TextEncoder.from_file(package.tokenizer_file, rules)
    runtime = OnnxCpuRuntime(
        package.graph_file(variant), CpuOptions(disabled_optimizers=tuple(variant.disabled_optimizers))
    )
    rows = encoder.encode_pairs([a for a, _ in inputs], [b for _, b in inputs])
    return runtime.run(encoder.assemble([(rows, i) for i in range(len(inputs))], int(rows.lengths.max())))


def expected_scores(checkpoint: Path) -> Float32Array:
    from sentence_transformers import CrossEncoder

    with quiet_libraries():
        scores = CrossEncoder(str(checkpoint), device="cpu").predict(list(checkpoints.PAIRS))
    return np.asarray(scores, dtype=np.float32)


def test_package_scores_like_sentence_transformers(cross_encoder_checkpoint: Path, cross_encoder_package: Path) -> None:
    package = read_package(cross_encoder_package)
    scores = activate(logits(package, list(checkpoints.PAIRS)), Activation.SIGMOID)[:, 0]
    np.testing.assert_allclose(scores, expected_scores(cross_encoder_checkpoint), atol=1e-5)


def test_manifest_says_what_a_server_needs(cross_encoder_package: Path) -> None:
    manifest = read_package(cross_encoder_package).manifest
    assert manifest.format == 1
    assert manifest.name == "tiny-cross-encoder"
    assert manifest.source == "tiny-cross-encoder"
    assert manifest.kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER
    assert manifest.activation == scoring_pb2.ACTIVATION_SIGMOID
    assert manifest.architecture == "bert"
    assert manifest.max_length == 128
    assert manifest.vocab_size == len(architectures.tokenizer("bert"))
    assert list(manifest.labels) == ["LABEL_0"]
    assert manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_RIGHT
    assert manifest.created.endswith("Z")
    assert {"torch", "transformers", "onnxruntime"} <= set(manifest.tool_versions)
    (variant,) = manifest.variants
    assert (variant.name, variant.file, variant.provider) == ("cpu-fp32", "cpu-fp32.onnx", "cpu")
    assert list(variant.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    assert variant.output == "logits"
    assert list(variant.disabled_optimizers) == ["SkipLayerNormFusion"]
    assert {report.name: report.rewritten for report in variant.passes}["prune_last_layer"] == 1
    assert variant.parity.passed
    assert variant.parity.samples >= 100


def test_no_file_of_the_package_names_a_local_path(cross_encoder_checkpoint: Path, cross_encoder_package: Path) -> None:
    for file in cross_encoder_package.iterdir():
        assert str(cross_encoder_checkpoint.parent).encode() not in file.read_bytes(), file.name


def test_bi_encoder_manifest_says_how_vectors_are_made(bi_encoder_package: Path) -> None:
    manifest = read_package(bi_encoder_package).manifest
    assert manifest.kind == manifest_pb2.MODEL_KIND_BI_ENCODER
    assert (manifest.dimensions, list(manifest.pooling), manifest.normalized) == (32, ["mean"], True)
    assert manifest.similarity == "cosine"
    assert not manifest.labels
    assert manifest.variants[0].output == "sentence_embedding"
    assert list(manifest.variants[0].inputs) == ["input_ids", "attention_mask"]


def test_one_package_holds_several_precisions_best_first(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    exported = export_checkpoint(
        ExportConfig(
            tune=False,
            checkpoint=str(cross_encoder_checkpoint),
            output=tmp_path / "model",
            precisions=("int8", "fp32", "int8-dynamic"),
            name="mine",
        )
    )
    manifest = exported.package.manifest
    assert manifest.name == "mine"
    assert [variant.name for variant in manifest.variants] == ["cpu-int8", "cpu-fp32", "cpu-int8-dynamic"]
    assert manifest.variants[0].calibration.method == "minmax, searched"
    assert 0 < manifest.variants[0].calibration.mean_error <= manifest.variants[0].calibration.plain_error
    assert manifest.variants[0].calibration.data == "built-in"
    assert manifest.variants[0].calibration.samples > 50
    assert not manifest.variants[2].HasField("calibration")
    int8, fp32, dynamic = (variant.parity for variant in manifest.variants)
    assert int8.spearman > 0.98
    assert int8.batch_variance < 1e-4 < dynamic.batch_variance
    assert fp32.max_abs_diff < 1e-4
    assert exported.parity is not None
    names = {path.name for path in (tmp_path / "model").iterdir()}
    graphs = {"cpu-int8.onnx", "cpu-fp32.onnx", "cpu-int8-dynamic.onnx"}
    assert names == graphs | {"manifest.json", "tokenizer.json", "parity.json", "PARITY.md"}


def test_bi_encoder_of_several_modules_exports(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(
        tmp_path / "checkpoint",
        pooling=["cls", "mean"],
        dense=24,
        normalize=False,
        prompts={"query": "query: "},
        default_prompt_name="query",
    )
    config = ExportConfig(tune=False, checkpoint=str(directory), output=tmp_path / "model", precisions=("fp32", "int8"))
    manifest = export_checkpoint(config).package.manifest
    assert (manifest.dimensions, list(manifest.pooling)) == (24, ["cls", "mean"])
    assert dict(manifest.prompts) == {"query": "query: ", "document": ""}
    assert manifest.default_prompt_name == "query"


def test_cls_pooled_bi_encoder_is_pruned(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "checkpoint", pooling="cls")
    config = ExportConfig(tune=False, checkpoint=str(directory), output=tmp_path / "model", precisions=("fp32",))
    variant = export_checkpoint(config).package.manifest.variants[0]
    assert {report.name: report.rewritten for report in variant.passes}["prune_last_layer"] == 1
    assert variant.parity.max_abs_diff < 1e-5


def test_three_labels_keep_their_order(three_label_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        tune=False, checkpoint=str(three_label_checkpoint), output=tmp_path / "model", precisions=("fp32",)
    )
    package = export_checkpoint(config).package
    assert list(package.manifest.labels) == ["contradiction", "entailment", "neutral"]
    assert package.manifest.activation == scoring_pb2.ACTIVATION_IDENTITY
    scores = logits(package, list(checkpoints.PAIRS))
    np.testing.assert_allclose(scores, expected_scores(three_label_checkpoint), atol=1e-4)


def test_adapter_exports_like_any_checkpoint(adapter_directory: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        tune=False, checkpoint=str(adapter_directory), output=tmp_path / "model", precisions=("fp32",)
    )
    package = export_checkpoint(config).package
    assert package.manifest.source == adapter_directory.name
    assert package.manifest.variants[0].parity.passed


def test_smaller_max_length_truncates_like_the_reference(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        precisions=("fp32",),
        max_length=24,
    )
    manifest = export_checkpoint(config).package.manifest
    assert manifest.max_length == 24
    assert manifest.variants[0].parity.passed


def test_users_texts_calibrate_and_are_compared(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(json.dumps(pair) for pair in checkpoints.PAIRS))
    exported = export_checkpoint(
        ExportConfig(
            tune=False,
            checkpoint=str(cross_encoder_checkpoint),
            output=tmp_path / "model",
            calibration_data=data,
            parity_data=data,
            parity_threshold=0.5,
        )
    )
    (variant,) = exported.package.manifest.variants
    assert (variant.calibration.data, variant.calibration.samples) == ("mine.jsonl", 6)
    assert variant.parity.spearman_limit == 0.5
    assert exported.parity is not None
    assert [section.origin for section in exported.parity.variants[0].sections] == ["built-in", "mine.jsonl"]


def test_export_without_parity_says_so_by_its_absence(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(tune=False, checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", parity=False)
    exported = export_checkpoint(config)
    assert exported.parity is None
    assert not exported.package.manifest.variants[0].HasField("parity")
    assert not (tmp_path / "model" / "parity.json").exists()


def test_failed_parity_leaves_no_package(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    # Calibrated on two empty pairs, int8 saturates on everything else; no int8 graph reaches a correlation of 1.
    data = tmp_path / "empty.jsonl"
    data.write_text('["", ""]\n["", ""]\n')
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        calibration_data=data,
        parity_threshold=1.0,
    )
    with pytest.raises(ParityFailed, match=r"no package was made: cpu-int8 ranks unlike the checkpoint") as caught:
        export_checkpoint(config)
    assert not caught.value.report.passed
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_interrupt_leaves_nothing(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepFinished) and event.title.startswith("make cpu-fp32"):
            raise KeyboardInterrupt

    config = ExportConfig(
        tune=False, checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", precisions=("fp32",)
    )
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(config, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_existing_package_is_refused_before_any_work(cross_encoder_package: Path) -> None:
    events: list[Event] = []
    with pytest.raises(OutputInvalid, match="--force"):
        export_checkpoint(ExportConfig(checkpoint="/nowhere", output=cross_encoder_package), events.append)
    assert events == []


def test_force_replaces_a_package(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        precisions=("fp32",),
        parity=False,
    )
    export_checkpoint(config)
    (tmp_path / "model" / "stale").touch()
    forced = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        precisions=("int8",),
        parity=False,
        force=True,
    )
    export_checkpoint(forced)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "cpu-int8.onnx",
        "manifest.json",
        "tokenizer.json",
    }


def test_unsupported_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    directory = checkpoints.save_cross_encoder(tmp_path / "checkpoint", activation="torch.nn.modules.activation.Tanh")
    with pytest.raises(CheckpointUnsupported, match="Tanh"):
        export_checkpoint(ExportConfig(tune=False, checkpoint=str(directory), output=tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_bad_data_file_stops_the_export_before_the_graph(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('"one text"\n')
    events: list[Event] = []
    config = ExportConfig(
        tune=False, checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", parity_data=data
    )
    with pytest.raises(DataInvalid, match=r"pairs\.jsonl:1"):
        export_checkpoint(config, events.append)
    assert not any(event.title == "export the graph" for event in events)


def test_every_step_is_told_when_it_starts_and_ends(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        precisions=("fp32",),
        parity=False,
    )
    export_checkpoint(config, events.append)
    started = [event.title for event in events if isinstance(event, StepStarted)]
    finished = [event.title for event in events if isinstance(event, StepFinished)]
    assert started == finished
    assert "make cpu-fp32" in finished


def test_an_int8_variant_keeps_to_the_difference_that_is_asked_for(
    cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    config = ExportConfig(
        checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", tune=False, max_diff=1e-6
    )
    with pytest.raises(ParityFailed, match=r"cpu-int8 differs .*, allowed 1e-06 \(--max-diff\); fp32 differs less"):
        export_checkpoint(config)
    assert not (tmp_path / "model").exists()


def test_layers_stay_in_float_and_the_report_says_which(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    config = ExportConfig(checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", tune=False, keep_float=1)
    variant = export_checkpoint(config).package.manifest.variants[0]
    (layer,) = variant.calibration.float_layers
    report = json.loads((tmp_path / "model" / "parity.json").read_text())["quantisation"]["cpu-int8"]
    assert {tensor["layer"] for tensor in report["tensors"] if tensor["in_float"]} == {layer}
    assert "left in float32" in (tmp_path / "model" / "PARITY.md").read_text()
