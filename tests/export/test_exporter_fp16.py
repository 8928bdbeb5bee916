"""Packages with a variant for a GPU: made, checked, shown and refused on machines that have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pairwire.cli.main import main
from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.errors import CheckpointUnsupported, ParityFailed
from pairwire.export.figures import FP16_LIMIT
from pairwire.export.progress import Event, StepFinished
from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.engine.models.loading import choose_variant
from pairwire.server.errors import PackageInvalid, RuntimeMissing
from pairwire.server.package import Package, read_package, sha256_of
from pairwire.server.runtime.wheels import check_wheels
from tests import checkpoints

needs_cpu_wheel = pytest.mark.skipif(check_wheels() != "onnxruntime", reason="onnxruntime-gpu is installed")
CPU = EngineConfig(warmup_s=0.01, cache_dir="none")


def exported(checkpoint: Path, directory: Path, *precisions: str, events: list[Event] | None = None) -> Package:
    config = ExportConfig(tune=False, checkpoint=str(checkpoint), output=directory, precisions=precisions)
    return export_checkpoint(config, None if events is None else events.append).package


@pytest.fixture(scope="module")
def half_only(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with cuda-fp16 and nothing else."""
    return exported(cross_encoder_checkpoint, tmp_path_factory.mktemp("package") / "half", "fp16").directory


@pytest.fixture(scope="module")
def both(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with cuda-fp16 and cpu-int8."""
    return exported(cross_encoder_checkpoint, tmp_path_factory.mktemp("package") / "both", "fp16", "int8").directory


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_variant_says_what_a_gpu_needs_to_know(half_only: Path) -> None:
    (variant,) = read_package(half_only).manifest.variants
    assert (variant.name, variant.file) == ("cuda-fp16", "cuda-fp16.onnx")
    assert (variant.provider, variant.precision) == ("cuda", "fp16")
    assert variant.inputs == ["input_ids", "token_type_ids", "position_ids", "cumulative_lengths", "token_offset"]
    assert variant.output == "logits"
    assert variant.sha256 == sha256_of(half_only / variant.file)
    assert variant.size_bytes == (half_only / variant.file).stat().st_size
    assert {report.name: report.rewritten for report in variant.passes}["packed"] == 2
    assert not variant.disabled_optimizers
    assert not variant.HasField("calibration")
    assert files(half_only) == {"cuda-fp16.onnx", "manifest.json", "tokenizer.json", "parity.json", "PARITY.md"}


def test_parity_is_measured_without_a_gpu(half_only: Path) -> None:
    parity = read_package(half_only).manifest.variants[0].parity
    assert parity.passed
    assert parity.samples >= 100
    assert 1e-6 < parity.max_abs_diff <= parity.max_abs_diff_limit
    assert parity.max_abs_diff_limit == pytest.approx(FP16_LIMIT)
    assert parity.spearman >= parity.spearman_limit == pytest.approx(0.98)


def test_graph_takes_half_the_room_of_float32(cross_encoder_package: Path, half_only: Path) -> None:
    whole = (cross_encoder_package / "cpu-fp32.onnx").stat().st_size
    assert (half_only / "cuda-fp16.onnx").stat().st_size < 0.75 * whole


def test_variants_of_both_providers_share_a_package_best_first(both: Path) -> None:
    variants = read_package(both).manifest.variants
    assert [(variant.name, variant.provider) for variant in variants] == [("cuda-fp16", "cuda"), ("cpu-int8", "cpu")]
    assert all(variant.parity.passed for variant in variants)
    half, quantised = ({report.name for report in variant.passes} for variant in variants)
    assert "packed" in half - quantised
    assert "prune_last_layer" in quantised - half


def test_int8_variant_is_the_same_with_float16_beside_it(
    cross_encoder_checkpoint: Path, both: Path, tmp_path: Path
) -> None:
    """The graph for a GPU is made from a copy: no pass of one reaches the other, in either order."""
    other = exported(cross_encoder_checkpoint, tmp_path / "other", "int8", "fp16")
    assert [variant.name for variant in other.manifest.variants] == ["cpu-int8", "cuda-fp16"]
    hashes = {variant.name: variant.sha256 for variant in other.manifest.variants}
    assert hashes == {variant.name: variant.sha256 for variant in read_package(both).manifest.variants}


def test_float16_must_keep_the_order_too(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    """No float16 ranks 125 pairs exactly as float32 does."""
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=tmp_path / "model",
        precisions=("fp16",),
        parity_threshold=1.0,
    )
    with pytest.raises(
        ParityFailed, match=r"^no package was made: cuda-fp16 ranks unlike the checkpoint: .* at least 1 "
    ):
        export_checkpoint(config)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_bi_encoder_has_a_variant_for_a_gpu(pooling: str, tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "checkpoint", pooling=pooling)
    (variant,) = exported(directory, tmp_path / "model", "fp16").manifest.variants
    assert (variant.provider, variant.output) == ("cuda", "sentence_embedding")
    assert variant.parity.passed


def test_making_it_is_a_step_that_tells_what_was_fused(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    exported(cross_encoder_checkpoint, tmp_path / "model", "fp16", events=events)
    (step,) = [event for event in events if isinstance(event, StepFinished) and event.title == "make cuda-fp16"]
    for part in ("MB", "packed 2", "skip_layer_norm 4", "half "):
        assert part in step.detail


def test_force_keeps_the_old_package_where_the_new_one_cannot_be_packed(half_only: Path, tmp_path: Path) -> None:
    directory = checkpoints.save_bi_encoder(tmp_path / "checkpoint", pooling="max")
    exported(directory, tmp_path / "model", "fp32")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    config = ExportConfig(
        tune=False, checkpoint=str(directory), output=tmp_path / "model", precisions=("fp16",), force=True
    )
    with pytest.raises(CheckpointUnsupported, match="no fp16 variant"):
        export_checkpoint(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def inspected(directory: Path, capsys: pytest.CaptureFixture[str]) -> Sequence[str]:
    assert main(["inspect", str(directory)]) == 0
    return capsys.readouterr().out.splitlines()


def test_inspect_shows_where_each_variant_runs(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = inspected(both, capsys)
    (half,) = [line.split() for line in lines if line.startswith("cuda-fp16 ") and "(" not in line]
    (quantised,) = [line.split() for line in lines if line.startswith("cpu-int8 ") and "(" not in line]
    assert half[1:3] == ["cuda", "fp16"]
    assert quantised[1:3] == ["cpu", "int8"]
    assert half[-3:-1] == ["passed", "on"]
    assert "  pass packed: 2 rewritten" in lines
    assert any(line.startswith("  pass half: ") for line in lines)
    assert "problem" not in "\n".join(lines)


def test_inspect_notices_a_damaged_graph_for_a_gpu(
    cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = exported(cross_encoder_checkpoint, tmp_path / "model", "fp16")
    with (package.directory / "cuda-fp16.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["inspect", str(package.directory)]) == 1
    assert "cuda-fp16.onnx" in capsys.readouterr().out.partition("problem: ")[2]


def test_the_wheel_for_a_cpu_chooses_the_variant_for_it(both: Path) -> None:
    package = read_package(both)
    assert choose_variant(package, EngineConfig(), "onnxruntime").name == "cpu-int8"
    assert choose_variant(package, EngineConfig(), "onnxruntime-gpu").name == "cuda-fp16"


REFUSED = r"no variant for the provider 'cpu' in this package; it has cuda-fp16$"


async def test_a_package_for_a_gpu_alone_is_refused_on_a_cpu_with_what_it_has(half_only: Path) -> None:
    with pytest.raises(PackageInvalid, match=REFUSED):
        await Engine.open(half_only, config=EngineConfig(provider="cpu"))
    with pytest.raises(PackageInvalid, match=REFUSED):
        choose_variant(read_package(half_only), EngineConfig(), "onnxruntime")


@needs_cpu_wheel
def test_the_command_line_says_so_too(half_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--local", str(half_only), "a", "b"]) == 1
    error = capsys.readouterr().err
    assert "no variant for the provider 'cpu' in this package; it has cuda-fp16" in error
    assert "Traceback" not in error


@needs_cpu_wheel
@pytest.mark.parametrize("settings", [EngineConfig(provider="cuda"), EngineConfig(variant="cuda-fp16")])
async def test_the_variant_for_a_gpu_is_not_run_on_a_cpu_in_its_place(settings: EngineConfig, both: Path) -> None:
    with pytest.raises(RuntimeMissing, match=r"no CUDAExecutionProvider.*`pairwire\[gpu\]`"):
        await Engine.open(both, config=settings)


@needs_cpu_wheel
async def test_a_package_for_both_serves_on_a_cpu(both: Path) -> None:
    async with await Engine.open(both, config=CPU) as engine:
        (info,) = engine.models.values()
        assert (info.variant, info.runtime.provider, info.runtime.cuda) == ("cpu-int8", "CPUExecutionProvider", None)
        assert len((await engine.score(checkpoints.PAIRS)).scores) == len(checkpoints.PAIRS)
