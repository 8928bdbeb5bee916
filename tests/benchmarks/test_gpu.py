"""What the benchmark of GPUs does before it meets one: bookkeeping, comparing, arguments, and its sentence without."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkout import ROOT
from benchmarks.gpu import device, parity, shapes
from benchmarks.gpu.systems import Batches, DynamicShapes, Ours
from pairwire.server.engine import EngineConfig
from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.engine.observer import BatchEvent, Observer
from pairwire.server.errors import PackageInvalid, RuntimeMissing
from pairwire.server.package import read_package, write_manifest
from pairwire.server.runtime.wheels import check_wheels
from tests.checkpoints import PAIRS

needs_cpu_wheel = pytest.mark.skipif(check_wheels() != "onnxruntime", reason="onnxruntime-gpu is installed")


def ran(useful: int, computed: int) -> BatchEvent:
    return BatchEvent(
        model="m",
        bucket=Bucket(1, computed),
        rows=1,
        useful_tokens=useful,
        computed_tokens=computed,
        started_s=0.0,
        seconds=1.0,
    )


@pytest.fixture
def packed_package(cross_encoder_package: Path, tmp_path: Path) -> Path:
    """A package that says of its graph that it is for a GPU: nobody gets as far as loading it."""
    manifest = read_package(cross_encoder_package).manifest
    variant = manifest.variants[0]
    (tmp_path / variant.file).write_bytes((cross_encoder_package / variant.file).read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((cross_encoder_package / "tokenizer.json").read_bytes())
    variant.name, variant.provider, variant.precision = "cuda-fp16", "cuda", "fp16"
    write_manifest(manifest, tmp_path)
    return tmp_path


def test_batches_add_up_what_was_computed() -> None:
    batches: Observer = Batches()
    assert isinstance(batches, Batches)
    assert batches.padding == 0
    for event in (ran(60, 64), ran(64, 64), ran(100, 128)):
        batches.batch_finished(event)
    batches.model_health("m", False)
    assert (batches.tokens, batches.padded) == (224, 32)
    assert batches.padding == pytest.approx(32 / 256)
    assert batches.counts == Counter({64: 2, 128: 1})


def test_what_ran_since_a_copy_is_told_apart_from_what_ran_before() -> None:
    batches = Batches()
    batches.batch_finished(ran(60, 64))
    before = batches.copy()
    assert batches.since(before) == Batches()
    batches.batch_finished(ran(30, 64))
    batches.batch_finished(ran(128, 128))
    assert before == Batches(60, 4, Counter({64: 1}))
    assert batches.since(before) == Batches(158, 34, Counter({64: 1, 128: 1}))
    assert batches.counts == Counter({64: 2, 128: 1})


def test_differences_are_given_for_each_system_in_the_columns() -> None:
    reference = np.array([0.1, 0.5, 0.9], dtype=np.float32)
    scores = {"near": reference + np.array([0, 0, 0.03], dtype=np.float32), "reversed": reference[::-1]}
    near, turned = parity.differences("set", PAIRS[:3], reference, scores)
    assert (near["part"], near["dataset"], near["system"], near["pairs"]) == ("parity", "set", "near", 3)
    assert near["max_abs_diff"] == pytest.approx(0.03, rel=1e-4)
    assert near["mean_abs_diff"] == pytest.approx(0.01, rel=1e-4)
    assert near["spearman"] == pytest.approx(1)
    assert turned["max_abs_diff"] == pytest.approx(0.8)
    assert turned["spearman"] == pytest.approx(-1)
    assert set(parity.COLUMNS) <= set(near)


def test_a_difference_is_one_whichever_side_is_larger() -> None:
    low, high = np.zeros(3, dtype=np.float32), np.array([0.1, 0.2, 0.3], dtype=np.float32)
    (above,) = parity.differences("set", PAIRS[:3], low + np.arange(3, dtype=np.float32), {"s": high})
    (below,) = parity.differences("set", PAIRS[:3], high, {"s": low + np.arange(3, dtype=np.float32)})
    assert above["max_abs_diff"] == below["max_abs_diff"] == pytest.approx(1.7)


def test_the_peak_is_unknown_without_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert device.peak_flops() == 0


@needs_cpu_wheel
def test_systems_of_ours_do_not_fall_back_to_a_cpu(packed_package: Path) -> None:
    with pytest.raises(RuntimeMissing, match="no CUDAExecutionProvider"):
        DynamicShapes(packed_package)
    with pytest.raises(RuntimeMissing, match="no CUDAExecutionProvider"):
        shapes.measure_shapes(packed_package, 64)


def test_a_package_without_a_variant_for_a_gpu_is_named(cross_encoder_package: Path) -> None:
    for measure in (DynamicShapes, lambda package: shapes.measure_shapes(package, 64)):
        with pytest.raises(
            PackageInvalid, match=r"no variant for the provider 'cuda' in this package; it has cpu-fp32$"
        ):
            measure(cross_encoder_package)


def test_our_system_scores_all_pairs_in_order_and_counts_its_batches(cross_encoder_package: Path) -> None:
    """The same class over a variant for a CPU: no part of it knows a device."""
    config = EngineConfig(warmup_s=0.01, cache_dir="none", score_cache_bytes=0)
    ours = Ours(cross_encoder_package, config, pairs_per_request=4)
    pairs = [*PAIRS, *(pair[::-1] for pair in PAIRS)]
    found = ours.predict(pairs)
    assert found.shape == (len(pairs),)
    alone = [ours.predict([pair])[0] for pair in pairs]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert np.ptp(found) > 0.1
    tokens = ours.tokens(pairs)
    assert len(tokens) == len(pairs)
    assert ours.batches.tokens == 3 * tokens.sum()
    assert ours.info.name == "tiny-cross-encoder"
    ours.close()


def command(*options: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.gpu", *options]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_the_command_asks_for_a_package() -> None:
    done = command()
    assert done.returncode == 2
    assert "--package" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_tells_its_options() -> None:
    done = command("--help")
    assert done.returncode == 0
    for option in ("--checkpoint", "--dataset", "--parity-limit", "--skip-shapes", "--json"):
        assert option in done.stdout


@pytest.mark.slow
@needs_cpu_wheel
def test_the_command_fails_with_our_sentence_where_there_is_no_gpu(packed_package: Path) -> None:
    done = command("--package", str(packed_package))
    assert done.returncode == 1
    assert "this onnxruntime has no CUDAExecutionProvider; install `pairwire[gpu]`" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_command_names_what_a_package_for_a_cpu_lacks(cross_encoder_package: Path) -> None:
    done = command("--package", str(cross_encoder_package))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("no variant for the provider 'cuda' in this package; it has cpu-fp32")
