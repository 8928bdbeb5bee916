"""Tuning real packages of a few nodes, by made-up and by real measurements."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pairwire.server.engine import EngineConfig, load_model
from pairwire.server.errors import ConfigInvalid, PackageInvalid
from pairwire.server.package import check_writable, read_package, replace_manifest, sha256_of
from pairwire.server.runtime.base import Float32Array, RuntimeInfo, TokenBatch
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime
from pairwire.server.tuning.tune import tune_package
from pairwire.v1 import manifest_pb2
from tests.server import packages, toy_packages
from tests.server.tuning.timings import by_name


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return toy_packages.write_cross_encoder(tmp_path / "toy")


@pytest.fixture
def with_int8(directory: Path) -> Path:
    """A package whose first variant says that it is int8; its graph is the same one."""
    manifest = read_package(directory).manifest
    first = manifest_pb2.Variant.FromString(manifest.variants[0].SerializeToString())
    first.name, first.precision, first.file = "cpu-int8", "int8", "cpu-int8.onnx"
    shutil.copy(directory / manifest.variants[0].file, directory / first.file)
    manifest.variants.insert(0, first)
    packages.write_manifest(directory, manifest)
    return directory


def tunings(variant: manifest_pb2.Variant) -> dict[str, manifest_pb2.Tuning]:
    return {tuning.subject: tuning for tuning in variant.tunings}


def test_a_package_is_tuned_for_real(directory: Path) -> None:
    told: list[str] = []
    tuned = tune_package(directory, tell=told.append)
    (variant,) = tuned.manifest.variants
    assert list(tunings(variant)) == ["optimizers", "batch_tokens"]
    for tuning in variant.tunings:
        assert sum(candidate.chosen for candidate in tuning.candidates) == 1
        assert all(len(row.us_per_token) == len(tuning.columns) for row in tuning.candidates)
        assert all(row.reason and row.relative > 0 for row in tuning.candidates)
    assert [row.name for row in tunings(variant)["batch_tokens"].candidates] == [
        f"{tokens} tokens" for tokens in (512, 256, 768, 1024)
    ]
    assert len(told) == 2
    assert tuned.package.manifest == read_package(directory).manifest  # nothing is written


def test_what_is_faster_becomes_a_setting(directory: Path) -> None:
    stopwatch = by_name({"SkipLayerNormFusion off": 8, "256 tokens": 7})
    tuned = tune_package(directory, measure=stopwatch)
    (variant,) = tuned.manifest.variants
    assert list(variant.disabled_optimizers) == ["SkipLayerNormFusion"]
    assert variant.batch_tokens == 256
    assert tuned.changes == [
        "cpu-fp32, optimizers: SkipLayerNormFusion off (20.0% faster than as packaged)",
        "cpu-fp32, batch_tokens: 256 tokens (30.0% faster than 512 tokens)",
    ]
    replace_manifest(tuned.package, tuned.manifest)
    again = read_package(directory).manifest
    assert again == tuned.manifest
    assert again.variants[0].sha256 == sha256_of(directory / again.variants[0].file)


def test_tuning_again_starts_where_it_ended_and_replaces_the_tables(directory: Path) -> None:
    first = tune_package(directory, measure=by_name({"SkipLayerNormFusion off": 8, "256 tokens": 7}))
    replace_manifest(first.package, first.manifest)
    back = tune_package(directory, measure=by_name({"SkipLayerNormFusion on": 8, "512 tokens": 7}))
    (variant,) = back.manifest.variants
    assert list(variant.disabled_optimizers) == []
    assert variant.batch_tokens == 0  # the server's own limit
    assert len(variant.tunings) == 2


def test_other_answers_are_refused_however_fast(directory: Path) -> None:
    class Rounding(OnnxCpuRuntime):
        """As if an optimizer made a graph round differently."""

        def __init__(self, graph: Path, options: CpuOptions | None = None) -> None:
            super().__init__(graph, options)
            self._off = 3e-5 * len((options or CpuOptions()).disabled_optimizers)

        def run(self, batch: TokenBatch) -> Float32Array:
            return np.asarray(super().run(batch) * np.float32(1 + self._off), dtype=np.float32)

    stopwatch = by_name({"SkipLayerNormFusion off": 8})
    (variant,) = tune_package(directory, measure=stopwatch, open_runtime=Rounding).manifest.variants
    assert list(variant.disabled_optimizers) == []
    row = tunings(variant)["optimizers"].candidates[1]
    assert row.max_abs_diff > 1e-5
    assert row.reason.startswith("answers differ by")


@pytest.mark.parametrize(("fp32_us", "first"), [(5.0, "cpu-fp32"), (20.0, "cpu-int8")])
def test_float32_serves_where_int8_is_slower(with_int8: Path, fp32_us: float, first: str) -> None:
    tuned = tune_package(with_int8, measure=by_name({"cpu-fp32": fp32_us}))
    assert tuned.manifest.variants[0].name == first
    assert sorted(variant.name for variant in tuned.manifest.variants) == ["cpu-fp32", "cpu-int8"]
    table = tunings(tuned.manifest.variants[0])["variant"].candidates
    assert [(row.name, row.chosen) for row in table] == [
        ("cpu-int8", first == "cpu-int8"),
        ("cpu-fp32", first == "cpu-fp32"),
    ]


def test_int8_never_takes_the_place_of_float32(with_int8: Path) -> None:
    manifest = read_package(with_int8).manifest
    manifest.variants.reverse()
    packages.write_manifest(with_int8, manifest)
    tuned = tune_package(with_int8, measure=by_name({"cpu-int8": 1.0}))
    assert [variant.name for variant in tuned.manifest.variants] == ["cpu-fp32", "cpu-int8"]
    first, other = tunings(tuned.manifest.variants[0])["variant"].candidates
    assert (first.chosen, other.name, other.chosen) == (True, "cpu-int8", False)
    assert other.reason == "faster, but less exact; --variant of the server asks for it"


def test_one_variant_alone_is_tuned_by_name(with_int8: Path) -> None:
    tuned = tune_package(with_int8, variant="cpu-fp32", measure=by_name({}))
    assert [len(variant.tunings) for variant in tuned.manifest.variants] == [0, 2]


def test_what_cannot_be_tuned_is_said(directory: Path) -> None:
    with pytest.raises(PackageInvalid, match="no variant 'cpu-int4' in this package; it has cpu-fp32"):
        tune_package(directory, variant="cpu-int4", measure=by_name({}))
    manifest = read_package(directory).manifest
    manifest.variants.add(name="cuda-fp16", file="cuda-fp16.onnx", provider="cuda")
    packages.write_manifest(directory, manifest)
    with pytest.raises(ConfigInvalid, match="'cuda-fp16' is not for CPUs"):
        tune_package(directory, variant="cuda-fp16", measure=by_name({}))
    (directory / manifest.variants[0].file).write_bytes(b"")
    with pytest.raises(PackageInvalid, match="sha256"):
        tune_package(directory, measure=by_name({}))


def test_a_graph_that_does_not_run_is_a_sentence(directory: Path) -> None:
    class Broken:
        """A session that opens and then fails."""

        def __init__(self, graph: Path, options: CpuOptions) -> None:
            self.info = RuntimeInfo(provider="", device="", version="", intra_op_threads=1)

        def run(self, batch: TokenBatch) -> Float32Array:
            raise RuntimeError("kernel is missing")

        def close(self) -> None:
            pass

    with pytest.raises(PackageInvalid, match=r"cannot be loaded and run \(kernel is missing\)"):
        tune_package(directory, measure=by_name({}), open_runtime=Broken)


def test_a_package_that_was_changed_meanwhile_is_not_overwritten(directory: Path) -> None:
    tuned = tune_package(directory, measure=by_name({"256 tokens": 7}))
    other = read_package(directory).manifest
    other.variants[0].batch_tokens = 768
    packages.write_manifest(directory, other)
    with pytest.raises(PackageInvalid, match="another process has changed the package meanwhile"):
        replace_manifest(tuned.package, tuned.manifest)
    assert read_package(directory).manifest == other


def test_a_directory_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="the manifest cannot be written there"):
        check_writable(tmp_path / "nowhere")


@pytest.mark.parametrize(("setting", "tuned", "limit"), [(0, 0, 512), (0, 256, 256), (768, 256, 768)])
def test_a_server_obeys_unless_it_is_told_otherwise(directory: Path, setting: int, tuned: int, limit: int) -> None:
    manifest = read_package(directory).manifest
    manifest.variants[0].batch_tokens = tuned
    packages.write_manifest(directory, manifest)
    model = load_model(directory, EngineConfig(warmup_s=0.01, batch_tokens=setting, cache_dir="none"))
    # The largest batch of the shortest rows that the plan knows.
    assert len(model.costs.batch_seconds(0)) - 1 == limit // model.ladder.lengths[0]
    model.runtime.close()


def test_a_manifest_is_replaced_whole(directory: Path) -> None:
    before = sorted(path.name for path in directory.iterdir())
    mode = (directory / "manifest.json").stat().st_mode
    package = read_package(directory)
    changed = manifest_pb2.ModelManifest.FromString(package.manifest.SerializeToString())
    changed.variants[0].batch_tokens = 256
    replace_manifest(package, changed)
    assert sorted(path.name for path in directory.iterdir()) == before
    assert (directory / "manifest.json").stat().st_mode == mode
    assert json.loads((directory / "manifest.json").read_text())["variants"][0]["batchTokens"] == 256
