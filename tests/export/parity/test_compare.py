from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.config import Limits, Precision
from pairwire.export.errors import CheckpointUnsupported
from pairwire.export.figures import FP16_LIMIT, FP32_LIMIT, MAX_DIFF_LIMITS, ParityReport, VariantParity
from pairwire.export.graph import export_graph
from pairwire.export.packed_variant import make_packed
from pairwire.export.parity.compare import Reference, compare
from pairwire.export.parity.report import as_dict, as_lines, as_markdown, write_report
from pairwire.export.progress import quiet_libraries
from pairwire.export.texts import Texts
from pairwire.export.variant import MadeVariant
from pairwire.server.engine.kinds import ModelKind
from tests import checkpoints, packing

TEXTS = [(text,) for text in checkpoints.TEXTS]


def opened(directory: Path) -> Checkpoint:
    source = find_source(str(directory))
    with quiet_libraries():
        return open_checkpoint(source, source.directory)


def graph_of(checkpoint: Checkpoint, workspace: Path) -> ModelProto:
    with quiet_libraries():
        return export_graph(checkpoint, workspace)


@pytest.fixture(scope="module")
def reference(cross_encoder_checkpoint: Path) -> Reference:
    texts = [Texts(checkpoints.PAIRS, "built-in"), Texts([(b, a) for a, b in checkpoints.PAIRS[:3]], "mine.jsonl")]
    checkpoint = opened(cross_encoder_checkpoint)
    with quiet_libraries():
        return Reference(checkpoint, texts)


@pytest.fixture(scope="module")
def graph(plain_graph: packing.Graph) -> ModelProto:
    return plain_graph("bert")


def compared(
    reference: Reference, model: ModelProto, directory: Path, precision: str = "fp32", threshold: float = 0.98
) -> VariantParity:
    onnx.save(model, directory / "model.onnx")
    variant = MadeVariant(
        precision=Precision(precision), file=directory / "model.onnx", inputs=(), output="", passes=()
    )
    return compare(reference, variant, Limits(spearman=threshold))


def damaged(model: ModelProto, *, shift: float = 0.0, scale: float = 1.0) -> ModelProto:
    """The graph with the last bias shifted, or the last weights scaled."""
    copy = ModelProto()
    copy.CopyFrom(model)
    last = copy.graph.node[-1]
    for tensor in copy.graph.initializer:
        if tensor.name == last.input[2]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(shift), tensor.name))
        if tensor.name == last.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name))
    return copy


def test_faithful_graph_passes(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    result = compared(reference, graph, tmp_path)
    assert result.summary.passed
    assert result.summary.samples == 9
    assert result.summary.max_abs_diff < 1e-5
    assert result.summary.spearman == pytest.approx(1)
    assert result.summary.batch_variance < 1e-5


def test_figures_are_given_for_each_set_of_texts(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    sections = compared(reference, graph, tmp_path).sections
    assert [(section.origin, section.samples) for section in sections] == [("built-in", 6), ("mine.jsonl", 3)]


def test_float32_graph_that_is_off_by_a_little_fails(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    result = compared(reference, damaged(graph, shift=0.01), tmp_path)
    assert not result.summary.passed
    assert 1e-4 < result.summary.max_abs_diff < 3e-3
    assert result.worst[0].difference == pytest.approx(result.summary.max_abs_diff, rel=1e-3)
    report = ParityReport(ModelKind.CROSS_ENCODER, 0.98, [result])
    assert not report.passed
    assert "cpu-fp32 differs from the checkpoint by" in report.failures[0]


def test_int8_graph_is_judged_by_its_order_alone(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    assert compared(reference, damaged(graph, shift=0.3), tmp_path, "int8").summary.passed
    reversed_order = compared(reference, damaged(graph, scale=-1.0), tmp_path, "int8")
    assert not reversed_order.summary.passed
    assert reversed_order.summary.spearman < 0
    assert "Spearman" in ParityReport(ModelKind.CROSS_ENCODER, 0.98, [reversed_order]).failures[0]


def test_threshold_can_be_lowered_and_is_recorded(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    result = compared(reference, damaged(graph, scale=-1.0), tmp_path, "int8", threshold=-1.0)
    assert result.summary.passed
    assert result.summary.spearman_limit == -1.0


def test_graph_that_gives_nan_fails(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        assert not compared(reference, damaged(graph, shift=float("nan")), tmp_path, precision).summary.passed


def test_constant_scores_keep_no_order(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    result = compared(reference, damaged(graph, scale=0.0), tmp_path, "int8")
    assert result.summary.spearman == 0
    assert not result.summary.passed


def test_bi_encoder_is_compared_by_vectors_and_cosines(bi_encoder_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = opened(bi_encoder_checkpoint)
    with quiet_libraries():
        reference = Reference(checkpoint, [Texts(TEXTS, "built-in")])
    result = compared(reference, graph_of(checkpoint, tmp_path), tmp_path)
    assert reference.results.shape == (len(TEXTS), 32)
    assert result.summary.passed
    assert result.summary.spearman == pytest.approx(1, abs=1e-3)


def test_default_prompt_goes_before_every_text(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(
        tmp_path / "bi", prompts={"query": "the river "}, default_prompt_name="query", normalize=False
    )
    checkpoint = opened(directory)
    with quiet_libraries():
        reference = Reference(checkpoint, [Texts(TEXTS, "built-in")])
    assert compared(reference, graph_of(checkpoint, tmp_path), tmp_path).summary.passed


def test_three_labels_are_compared_label_by_label(three_label_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = opened(three_label_checkpoint)
    with quiet_libraries():
        reference = Reference(checkpoint, [Texts(checkpoints.PAIRS, "built-in")])
    result = compared(reference, graph_of(checkpoint, tmp_path), tmp_path)
    assert reference.results.shape == (6, 3)
    assert result.summary.passed


def test_tokenizer_that_the_serving_code_cannot_follow_is_refused(cross_encoder_checkpoint: Path) -> None:
    checkpoint = opened(cross_encoder_checkpoint)
    checkpoint.reference.tokenizer.add_tokens(["river floods"])  # after the shipped tokenizer was taken from it
    with pytest.raises(CheckpointUnsupported, match="parity text 3 is tokenised differently by the serving code"):
        Reference(checkpoint, [Texts(checkpoints.PAIRS, "built-in")])


def test_report_is_written_for_machines_and_for_people(reference: Reference, graph: ModelProto, tmp_path: Path) -> None:
    good = compared(reference, graph, tmp_path)
    dynamic = compared(reference, damaged(graph, scale=-1.0), tmp_path, "int8-dynamic")
    report = ParityReport(ModelKind.CROSS_ENCODER, 0.98, [good, dynamic])
    write_report(report, tmp_path)
    content = json.loads((tmp_path / "parity.json").read_text())
    assert content == json.loads(json.dumps(as_dict(report)))
    assert content["passed"] is False
    assert [variant["variant"] for variant in content["variants"]] == ["cpu-fp32", "cpu-int8-dynamic"]
    text = (tmp_path / "PARITY.md").read_text()
    assert text == as_markdown(report)
    assert "- cpu-fp32: passed" in text
    assert "- cpu-int8-dynamic: failed" in text
    assert "depends on what it is batched with" in text
    assert [line.rpartition(" - ")[2] for line in as_lines(report)] == ["passed", "FAILED"]


def test_warning_about_batch_mates_is_only_for_dynamic_ranges(
    reference: Reference, graph: ModelProto, tmp_path: Path
) -> None:
    good = compared(reference, graph, tmp_path, Precision.INT8.value)
    assert "depends on what" not in as_markdown(ParityReport(ModelKind.CROSS_ENCODER, 0.98, [good]))


@pytest.fixture(scope="module")
def packed(reference: Reference, graph: ModelProto, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """The float16 graph of ``graph``."""
    file = tmp_path_factory.mktemp("packed") / "cuda-fp16.onnx"
    make_packed(graph, reference.checkpoint, file)
    return onnx.load(file)


def test_largest_differences_are_limited_where_a_score_should_be_the_same() -> None:
    assert MAX_DIFF_LIMITS == {Precision.FP32: FP32_LIMIT, Precision.FP16: FP16_LIMIT}
    assert FP32_LIMIT < FP16_LIMIT < 0.05


def test_float16_graph_keeps_to_its_limit_and_to_the_order(
    reference: Reference, packed: ModelProto, tmp_path: Path
) -> None:
    result = compared(reference, packed, tmp_path, "fp16", threshold=0.9)
    summary = result.summary
    assert (result.precision, summary.passed, summary.samples) == (Precision.FP16, True, 9)
    assert (summary.max_abs_diff_limit, summary.spearman_limit) == (FP16_LIMIT, 0.9)
    assert 1e-6 < summary.max_abs_diff < FP16_LIMIT
    assert summary.batch_variance < 1e-3


@pytest.mark.parametrize(("shift", "scale"), [(0.2, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_float16_graph_that_is_off_by_more_than_rounding_fails(
    shift: float, scale: float, reference: Reference, packed: ModelProto, tmp_path: Path
) -> None:
    result = compared(reference, damaged(packed, shift=shift, scale=scale), tmp_path, "fp16")
    assert not result.summary.passed
    report = ParityReport(ModelKind.CROSS_ENCODER, 0.98, [result])
    if np.isnan(shift):
        assert report.failures == ["cuda-fp16 gives nan or infinity; nothing can be compared"]
        return
    assert "differs from the checkpoint by" in report.failures[0]
    assert report.failures[0].endswith("allowed 0.02")


def test_float16_vectors_are_compared_in_units_of_the_largest(tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "bi", normalize=False)
    checkpoint = opened(directory)
    with quiet_libraries():
        reference = Reference(checkpoint, [Texts(TEXTS, "built-in")])
    (tmp_path / "workspace").mkdir()
    make_packed(graph_of(checkpoint, tmp_path / "workspace"), checkpoint, tmp_path / "graph.onnx")
    result = compared(reference, onnx.load(tmp_path / "graph.onnx"), tmp_path, "fp16")
    largest = float(np.abs(reference.results).max())
    assert largest > 1
    assert result.summary.max_abs_diff_limit == pytest.approx(FP16_LIMIT * largest, rel=1e-5)
    assert result.summary.passed


def _copied(checkpoint: Path, directory: Path, **changes: object) -> Path:
    """A copy of a checkpoint whose tokenizer is configured otherwise; None takes an option away."""
    copy = shutil.copytree(checkpoint, directory)
    checkpoints.edit_json(copy / "tokenizer_config.json", **changes)
    checkpoints.edit_json(copy / "special_tokens_map.json", **changes)
    return copy


@pytest.mark.parametrize("processor", ["as it is", "BertProcessing"])
def test_token_types_that_the_reference_leaves_out_are_not_made_up(
    processor: str, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    inputs = ["input_ids", "attention_mask"]
    directory = _copied(cross_encoder_checkpoint, tmp_path / "typeless", model_input_names=inputs)
    if processor == "BertProcessing":
        around = {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}
        checkpoints.edit_json(directory / "tokenizer.json", post_processor=around)
    checkpoint, typed = opened(directory), opened(cross_encoder_checkpoint)
    with quiet_libraries():
        reference = Reference(checkpoint, [Texts(checkpoints.PAIRS, "built-in")])
        others = Reference(typed, [Texts(checkpoints.PAIRS, "built-in")])
    assert np.abs(reference.results - others.results).max() > 0.01
    result = compared(reference, graph_of(checkpoint, tmp_path), tmp_path)
    assert result.summary.passed
    assert result.summary.max_abs_diff < 1e-5


def test_prompts_whose_length_would_be_counted_otherwise_are_refused(tmp_path: Path) -> None:
    plain = checkpoints.save_bi_encoder(
        tmp_path / "plain", include_prompt=False, prompts={"query": "find: "}, default_prompt_name="query"
    )
    Reference(opened(plain), [Texts(TEXTS, "built-in")])
    odd = _copied(plain, tmp_path / "odd", tokenizer_class="PreTrainedTokenizerFast", sep_token=None)
    with pytest.raises(CheckpointUnsupported, match=r"the prompt 'query: ' has 6 tokens .*, and 5 in the serving code"):
        Reference(opened(odd), [Texts(TEXTS, "built-in")])


def test_longest_built_in_texts_are_compared_by_their_tokens_alone_and_a_persons_own_are_run(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = int(np.sort(reference.rows.lengths)[-3])
    monkeypatch.setattr("pairwire.export.parity.compare.LONGEST_COMPARED", longest - 1)
    fewer = Reference(reference.checkpoint, reference.texts)
    first = len(reference.texts[0].inputs)
    kept = [at for at, length in enumerate(reference.rows.lengths) if length < longest or at >= first]
    assert 0 < first - sum(at < first for at in kept) < first
    assert fewer.inputs == [reference.inputs[at] for at in kept]
    np.testing.assert_allclose(fewer.results, reference.results[kept], atol=1e-6)


def test_long_rows_of_the_reference_run_by_themselves_and_stay_in_their_places(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pairwire.export.parity.compare._ALONE_FROM", int(np.median(reference.rows.lengths)))
    np.testing.assert_allclose(Reference(reference.checkpoint, reference.texts).results, reference.results, atol=1e-6)
