"""An engine over a packed runtime, which here runs on the CPU: from text to scores, statistics and series."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import numpy as np
import pytest

from pairwire.server.banner import cuda_line, start_up_table
from pairwire.server.engine import BatchEvent, Engine, EngineConfig, Observer, RequestEvent, build_model
from pairwire.server.engine.models.cuda import device_facts, model_on, open_on_gpu
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.errors import RuntimeMissing
from pairwire.server.metrics import Metrics
from pairwire.server.rpc.codec import encode_cuda, encode_summary
from pairwire.server.runtime.base import Float32Array
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.nvidia import count_cards, find_gpus
from pairwire.server.runtime.onnx_cpu import OnnxCpuRuntime
from pairwire.server.runtime.onnx_cuda import DeviceFacts, OnnxCudaRuntime
from pairwire.v1 import manifest_pb2, model_pb2
from tests import checkpoints
from tests.server import packed_toys
from tests.server.engine import toys
from tests.server.packed_toys import LONGEST, PackedToy

PAIRS = [*checkpoints.PAIRS, ("ok", "ok"), ("cat " * 200, "dog " * 200)]
OPTIONS = CudaOptions(provider="cpu", longest=LONGEST, most_tokens=256)
FACTS = DeviceFacts(name="NVIDIA H200", driver="580.95.05", cudnn="9.28.1", attention_kernels=("FLASH_ATTENTION",) * 2)
GRAPHS = len(list(packed_toys.shapes(OPTIONS)))


class Watching(Observer):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.batches: list[BatchEvent] = []

    def request_finished(self, event: RequestEvent) -> None:
        """Nothing."""

    def batch_finished(self, event: BatchEvent) -> None:
        self.batches.append(event)

    def model_health(self, model: str, healthy: bool) -> None:
        """Nothing."""


def _encoder(toy: PackedToy) -> TextEncoder:
    return TextEncoder.from_file(toy.tokenizer, TextRules(max_length=LONGEST))


def _variant() -> manifest_pb2.Variant:
    return manifest_pb2.Variant(name="cuda-fp16", provider="cuda", precision="fp16")


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
async def engine(packed_toy: PackedToy, watching: Watching) -> AsyncIterator[Engine]:
    runtime = OnnxCudaRuntime(packed_toy.on_cpu, OPTIONS, facts=FACTS)
    manifest = toys.cross_encoder_manifest(max_length=LONGEST)
    model = model_on(runtime, manifest, _variant(), _encoder(packed_toy), EngineConfig())
    async with Engine([model], observer=watching) as engine:
        yield engine


async def _plain_scores(toy: PackedToy) -> Float32Array:
    encoder, manifest = _encoder(toy), toys.cross_encoder_manifest(max_length=LONGEST)
    costs = toys.toy_model(manifest=manifest).costs
    model = build_model(manifest, encoder, OnnxCpuRuntime(toy.plain), costs=costs)
    async with Engine([model]) as engine:
        return (await engine.score(PAIRS)).scores


async def test_pairs_score_as_with_the_plain_graph(engine: Engine, packed_toy: PackedToy) -> None:
    expected = await _plain_scores(packed_toy)
    result = await engine.score(PAIRS)
    assert result.usage.truncated_inputs == (len(PAIRS) - 1,)
    np.testing.assert_allclose(result.scores, expected, atol=1e-4)
    for pair, score in zip(PAIRS, expected, strict=True):
        alone = await engine.score([pair])
        np.testing.assert_allclose(alone.scores, [score], atol=1e-4)


async def test_callers_at_the_same_time_have_their_own_scores(engine: Engine, packed_toy: PackedToy) -> None:
    expected = await _plain_scores(packed_toy)
    calls = [PAIRS[at:] + PAIRS[:at] for at in range(len(PAIRS))] * 4
    results = await asyncio.gather(*(engine.score(pairs) for pairs in calls))
    for at, result in enumerate(results):
        np.testing.assert_allclose(result.scores, np.roll(expected, -(at % len(PAIRS)), axis=0), atol=1e-4)


async def test_usage_and_batches_tell_the_padding_of_whole_batches(engine: Engine, watching: Watching) -> None:
    result = await engine.score(PAIRS)
    useful = sum(batch.useful_tokens for batch in watching.batches)
    computed = sum(batch.computed_tokens for batch in watching.batches)
    assert (result.usage.tokens, result.usage.padded_tokens) == (useful, computed - useful)
    assert {batch.bucket.rows for batch in watching.batches} == {1}
    assert {batch.bucket.length for batch in watching.batches} <= set(engine.models["toy"].bucket_lengths)


async def test_a_model_tells_what_its_batches_are_padded_to_and_its_device(engine: Engine) -> None:
    info = engine.models["toy"]
    assert info.bucket_lengths == tuple(sorted({shape.tokens for shape in packed_toys.shapes(OPTIONS)}))
    assert (info.max_length, info.variant, info.workers) == (LONGEST, "cuda-fp16", 2)
    assert info.runtime.device == "NVIDIA H200"


async def test_statistics_tell_of_the_device_and_of_none_for_a_model_on_the_cpu(packed_toy: PackedToy) -> None:
    runtime = OnnxCudaRuntime(packed_toy.on_cpu, OPTIONS, facts=FACTS)
    manifest = toys.cross_encoder_manifest("packed", max_length=LONGEST)
    model = model_on(runtime, manifest, _variant(), _encoder(packed_toy), EngineConfig())
    async with Engine([model, toys.toy_model()]) as engine:
        statistics = engine.statistics().models
        assert statistics["packed"].cuda == runtime.info.cuda
        assert statistics["toy"].cuda is None
        metrics = Metrics()
        metrics.watch(engine.models.values(), engine.statistics)
        read = metrics.registry.get_sample_value
        assert read("pairwire_cuda_graphs", {"model": "packed"}) == 0
        assert read("pairwire_cuda_eager_shapes", {"model": "packed"}) == GRAPHS
        assert read("pairwire_cuda_memory_bytes", {"model": "packed"}) == 0
        for name in ("graphs", "eager_shapes", "memory_bytes"):
            assert read(f"pairwire_cuda_{name}", {"model": "toy"}) is None
        assert engine.statistics().workers == EngineConfig().worker_count()  # one of them needs the CPUs


async def test_a_summary_for_clients_has_all_that_is_known_of_the_device(engine: Engine) -> None:
    info = engine.models["toy"]
    assert info.runtime.cuda is not None
    summary = encode_summary(info)
    assert summary.cuda == encode_cuda(info.runtime.cuda, info.runtime.device)
    assert summary.cuda == model_pb2.CudaSummary(
        device_id=0,
        device="NVIDIA H200",
        driver="580.95.05",
        cuda=info.runtime.cuda.cuda,
        cudnn="9.28.1",
        attention_kernels=["FLASH_ATTENTION", "FLASH_ATTENTION"],
        graphs=0,
        eager_shapes=GRAPHS,
        eager_reason="a CPU captures no graphs",
        memory_bytes=0,
    )


async def test_the_table_at_start_ends_with_a_line_of_the_device(engine: Engine) -> None:
    info = engine.models["toy"]
    line = cuda_line(info)
    assert start_up_table(engine.models.values()).splitlines()[2:] == [line]
    assert line.startswith("toy: NVIDIA H200 (device 0), driver 580.95.05, CUDA ")
    assert line.endswith(
        f"cuDNN 9.28.1; attention FLASH_ATTENTION x 2; 0 CUDA graphs, {GRAPHS} shapes by operators: "
        "a CPU captures no graphs; 0 MiB"
    )


async def test_a_runtime_that_refused_a_batch_goes_on_serving(packed_toy: PackedToy) -> None:
    runtime = OnnxCudaRuntime(packed_toy.on_cpu, OPTIONS)
    manifest = toys.cross_encoder_manifest(max_length=LONGEST)
    model = model_on(runtime, manifest, _variant(), _encoder(packed_toy), EngineConfig())
    model.probe()
    async with Engine([model]) as engine:
        before = await engine.score(PAIRS)
        with pytest.raises(ValueError, match="is larger than the largest shape"):
            runtime.run_packed(packed_toys.rows((LONGEST + 1,)))
        np.testing.assert_array_equal((await engine.score(PAIRS)).scores, before.scores)


async def test_closing_an_engine_closes_the_runtime(packed_toy: PackedToy) -> None:
    runtime = OnnxCudaRuntime(packed_toy.on_cpu, OPTIONS)
    manifest = toys.cross_encoder_manifest(max_length=LONGEST)
    async with Engine([model_on(runtime, manifest, _variant(), _encoder(packed_toy), EngineConfig())]):
        pass
    runtime.close()  # again, and nobody waits for what has ended


def test_a_runtime_that_was_not_warmed_has_no_costs(packed_toy: PackedToy) -> None:
    options = CudaOptions(provider="cpu", longest=LONGEST, most_tokens=256, warm=False)
    runtime = OnnxCudaRuntime(packed_toy.on_cpu, options)
    manifest = toys.cross_encoder_manifest(max_length=LONGEST)
    with pytest.raises(ValueError, match="at least one measured shape"):
        model_on(runtime, manifest, _variant(), _encoder(packed_toy), EngineConfig())
    runtime.close()


def test_without_a_driver_little_is_known_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with caplog.at_level(logging.WARNING):
        facts = device_facts(OPTIONS, ("MATH",))
    assert (facts.name, facts.driver, facts.attention_kernels, facts.used_bytes()) == ("unknown", "", ("MATH",), 0)
    assert "the driver cannot be asked about device 0" in caplog.text


def test_a_gpu_that_is_not_there_is_missing(packed_toy: PackedToy) -> None:
    if count_cards():
        pytest.skip("there is an NVIDIA GPU")
    with pytest.raises(RuntimeMissing, match="`pairwire doctor` tells"):
        open_on_gpu(toys.cross_encoder_manifest(), _variant(), packed_toy.on_gpu, _encoder(packed_toy), EngineConfig())


@pytest.mark.gpu
async def test_a_model_is_opened_on_the_gpu_and_serves(packed_toy: PackedToy) -> None:
    if not packed_toys.has_gpu():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    expected = await _plain_scores(packed_toy)
    manifest = toys.cross_encoder_manifest(max_length=LONGEST)
    config = EngineConfig(batch_tokens=1024)
    model = open_on_gpu(manifest, _variant(), packed_toy.on_gpu, _encoder(packed_toy), config)
    async with Engine([model]) as engine:
        result = await engine.score(PAIRS)
        cuda = engine.statistics().models["toy"].cuda
    np.testing.assert_allclose(result.scores, expected, atol=0.05)
    assert cuda is not None
    assert cuda.eager == 0
    assert cuda.graphs > 0
    assert len(cuda.attention_kernels) == packed_toys.LAYERS
    assert cuda.driver == find_gpus()[0].driver
