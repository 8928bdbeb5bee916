"""A whole server over a packed float16 graph: the runtime of a GPU, with attention that a CPU has, behind real gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.client import (
    AsyncClient,
    ClientOptions,
    InvalidInput,
    ModelNotFound,
    RetryPolicy,
    ServerFault,
    WrongModelKind,
)
from pairwire.server.app import Application
from pairwire.server.engine import Engine, EngineConfig, Model
from pairwire.server.engine.models.cuda import model_on
from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.engine.text.encoder import TextEncoder
from pairwire.server.lifecycle import Phase
from pairwire.server.package import Package
from pairwire.server.runtime.base import Float32Array
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.onnx_cuda import DeviceFacts, OnnxCudaRuntime
from pairwire.server.runtime.packed import PackedBatch
from pairwire.v1 import model_pb2
from tests import checkpoints
from tests.server import serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAME = "toy"
LIMIT = 5e-3
"""Of float16, as the exporter allows it."""
PAIRS = [(first, second) for first in checkpoints.TEXTS for second in checkpoints.TEXTS]
CONFIG = EngineConfig(warmup_s=0.01, cache_dir="none", probe_interval_s=0.01, score_cache_bytes=0)
ONCE = ClientOptions(retry=RetryPolicy(attempts=1))


class Runtime(OnnxCudaRuntime):
    """Fails while it is told to, waits while its gate is shut, and keeps the sizes of its batches."""

    broken = False

    def __init__(self, graph: Path, options: CudaOptions, facts: DeviceFacts) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Semaphore(0)
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        ticks = iter(range(1 << 20))
        super().__init__(graph, options, facts=facts, now=lambda: next(ticks) * 1e-6)

    def run_packed(self, packed: PackedBatch) -> Float32Array:
        self.inside.release()
        self.gate.wait()
        if self.broken:
            raise RuntimeError("the device is lost")
        self.sizes.append((packed.rows, len(packed.input_ids)))
        return super().run_packed(packed)

    def close(self) -> None:
        self.closed = True
        super().close()


@dataclass(frozen=True, slots=True)
class Toy:
    """A model, its runtime, and the scores that float32 gives."""

    model: Model
    runtime: Runtime
    expected: Float32Array
    """[pairs of ``PAIRS``]"""


@pytest.fixture(scope="module")
def package(cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package with cuda-fp16 and cpu-fp32, and beside it ``unpacked.onnx``."""
    from pairwire.export import ExportConfig, export_checkpoint
    from pairwire.export.passes import unpacked

    directory = tmp_path_factory.mktemp("package") / NAME
    config = ExportConfig(
        tune=False,
        checkpoint=str(cross_encoder_checkpoint),
        output=directory,
        precisions=("fp16", "fp32"),
        parity=False,
    )
    package = export_checkpoint(config).package
    graph = onnx.load(package.graph_file(package.variant(provider="cuda")))
    unpacked.apply(graph)
    onnx.save(graph, directory / "unpacked.onnx")
    return package


@pytest.fixture(scope="module")
def expected(package: Package) -> Float32Array:
    """Scores of ``PAIRS`` by the plain graph in float32."""

    async def score() -> Float32Array:
        config = EngineConfig(provider="cpu", warmup_s=0.01, cache_dir="none")
        async with await Engine.open(package.directory, config=config) as engine:
            return (await engine.score(PAIRS)).scores[:, 0]

    return asyncio.run(score())


@pytest.fixture
def toy(package: Package, expected: Float32Array) -> Toy:
    rules = rules_of(package.manifest)
    options = CudaOptions(
        provider="cpu", longest=rules.max_length, most_tokens=512, pad_token_id=rules.pad_token_id, device_id=0
    )
    facts = DeviceFacts(name="toy device", driver="1.2", cudnn="", attention_kernels=("flash", "flash"))
    runtime = Runtime(package.directory / "unpacked.onnx", options, facts)
    encoder = TextEncoder.from_file(package.tokenizer_file, rules)
    variant = package.variant(provider="cuda")
    return Toy(model_on(runtime, package.manifest, variant, encoder, CONFIG), runtime, expected)


@pytest.fixture
async def served(toy: Toy) -> AsyncIterator[serving.Served]:
    async with serving.serve(settings=serving.config(engine=CONFIG), models=lambda: [toy.model]) as served:
        yield served
        toy.runtime.gate.set()


@pytest.fixture
async def client(served: serving.Served) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{served.application.port}", options=ONCE) as client:
        yield client


async def test_scores_are_those_of_the_plain_graph_within_float16(toy: Toy, client: AsyncClient) -> None:
    result = await client.score(PAIRS)
    difference = np.abs(result.scores - toy.expected)
    assert 0 < difference.max() <= LIMIT
    assert np.ptp(toy.expected) > 0.5
    assert sum(rows for rows, _ in toy.runtime.sizes) == len(PAIRS)
    assert sum(tokens for _, tokens in toy.runtime.sizes) == result.usage.tokens


async def test_usage_counts_the_padding_of_whole_batches_only(toy: Toy, client: AsyncClient) -> None:
    result = await client.score(PAIRS)
    computed = 0
    for rows, tokens in toy.runtime.sizes:
        computed += toy.runtime.shapes.fit(tokens, rows, toy.model.encoder.rules.max_length).tokens
    assert result.usage.tokens + result.usage.padded_tokens == computed


async def test_a_pair_scores_the_same_alone_and_in_any_company(
    toy: Toy, served: serving.Served, client: AsyncClient
) -> None:
    alone = np.concatenate([(await client.score([pair])).scores for pair in PAIRS[:12]])
    toy.runtime.sizes.clear()
    toy.runtime.gate.clear()
    calls = [asyncio.ensure_future(client.score([pair])) for pair in PAIRS]
    await serving.eventually(lambda: served.application.engine.statistics().open_requests == len(calls))
    toy.runtime.gate.set()
    found = np.concatenate([result.scores for result in await asyncio.gather(*calls)])
    np.testing.assert_allclose(found[:12], alone, atol=1e-3)
    np.testing.assert_allclose(found, toy.expected, atol=LIMIT)
    assert len(toy.runtime.sizes) < len(calls) / 2  # what waited together shared batches


async def test_ranking_and_truncation_work_as_on_a_cpu(toy: Toy, client: AsyncClient) -> None:
    query, documents = checkpoints.TEXTS[2], list(checkpoints.TEXTS)
    ranked = await client.rerank(query, documents)
    scores = toy.expected[2 * len(documents) : 3 * len(documents)]
    for found in ranked:
        assert found.score == pytest.approx(scores[found.index], abs=LIMIT)
    assert [found.score for found in ranked] == sorted((found.score for found in ranked), reverse=True)
    long = await client.score([("a", "b"), ("a", "word " * 3000)])
    assert long.usage.truncated_inputs == (1,)
    assert max(tokens for _, tokens in toy.runtime.sizes) <= 512


async def test_bad_input_is_refused_and_never_run(toy: Toy, client: AsyncClient) -> None:
    toy.runtime.sizes.clear()
    with pytest.raises(InvalidInput, match="tokens") as caught:
        await client.score([("a", "b"), ("a", "word " * 3000)], truncation="error")
    assert caught.value.field == "pairs[1].second"
    with pytest.raises(ModelNotFound, match="'other'"):
        await client.score(PAIRS[:1], model="other")
    with pytest.raises(WrongModelKind, match=NAME):
        await client.embed(["a"], model=NAME)
    assert toy.runtime.sizes == []
    assert len(await client.score(PAIRS[:3])) == 3


async def test_get_model_tells_of_the_device(toy: Toy, served: serving.Served) -> None:
    summary = (await served.models.GetModel(model_pb2.GetModelRequest(model=NAME))).summary
    shapes = list(toy.runtime.shapes)
    assert (summary.variant, summary.provider) == ("cuda-fp16", "CPUExecutionProvider")
    assert list(summary.bucket_lengths) == list(toy.runtime.shapes.tokens)
    assert summary.cuda == model_pb2.CudaSummary(
        device="toy device",
        driver="1.2",
        attention_kernels=["flash", "flash"],
        eager_shapes=len(shapes),
        eager_reason="a CPU captures no graphs",
    )
    (listed,) = (await served.models.ListModels(model_pb2.ListModelsRequest())).models
    assert listed == summary


async def test_a_model_on_a_cpu_has_no_summary_of_a_device(package: Package) -> None:
    settings = serving.config(package.directory, engine=EngineConfig(provider="cpu", warmup_s=0.01, cache_dir="none"))
    async with serving.serve(settings=settings) as served:
        summary = (await served.models.GetModel(model_pb2.GetModelRequest())).summary
    assert summary.variant == "cpu-fp32"
    assert not summary.HasField("cuda")


async def test_a_batch_that_fails_turns_health_and_a_probe_turns_it_back(
    toy: Toy, served: serving.Served, client: AsyncClient
) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", f"model/{NAME}")]
    for watch in watches:
        assert (await watch.read()).status == SERVING
    toy.runtime.broken = True
    with pytest.raises(ServerFault, match=rf"model '{NAME}' failed while it ran \(RuntimeError\)"):
        await client.score(PAIRS[:2])
    for watch in watches:
        assert (await watch.read()).status == NOT_SERVING
    toy.runtime.broken = False
    for watch in watches:
        assert (await watch.read()).status == SERVING
        watch.cancel()
    await client.wait_until_ready()  # its channel watches health by itself, and hears of it in its own time
    np.testing.assert_allclose((await client.score(PAIRS)).scores, toy.expected, atol=LIMIT)


async def test_a_batch_that_fails_once_leaves_the_next_ones_right(
    toy: Toy, served: serving.Served, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the failed batch left in the buffers of its shape does not reach another one."""
    right, left = OnnxCudaRuntime.run_packed, [1]

    def once(runtime: OnnxCudaRuntime, packed: PackedBatch) -> Float32Array:
        found = right(runtime, packed)
        if left:
            left.pop()
            raise ValueError("the result did not arrive")
        return found

    monkeypatch.setattr(OnnxCudaRuntime, "run_packed", once)
    with pytest.raises(ServerFault, match="ValueError"):
        await client.score(PAIRS[:2])
    health = health_pb2_grpc.HealthStub(served.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=f"model/{NAME}"))
    async with asyncio.timeout(serving.PATIENCE_S):
        while (await watch.read()).status != SERVING:
            pass
    watch.cancel()
    for pairs, expected in ((PAIRS[2:4], toy.expected[2:4]), (PAIRS, toy.expected)):
        np.testing.assert_allclose((await client.score(pairs)).scores, expected, atol=LIMIT)


async def test_a_drain_under_load_loses_nothing(toy: Toy) -> None:
    application = Application(serving.config(engine=CONFIG), open_engine=serving.opener(lambda: [toy.model]))
    await application.listen()
    await application.load()
    runtime = toy.runtime
    try:
        async with AsyncClient(f"127.0.0.1:{application.port}", options=ONCE) as client:
            runtime.gate.clear()
            calls = [asyncio.ensure_future(client.score(PAIRS[at : at + 5])) for at in range(0, len(PAIRS), 5)]
            await asyncio.to_thread(runtime.inside.acquire)
            await serving.eventually(lambda: application.engine.statistics().open_requests == len(calls))
            draining = asyncio.create_task(application.drain())
            await serving.eventually(lambda: application.lifecycle.phase is Phase.DRAINING)
            runtime.gate.set()
            found = np.concatenate([result.scores for result in await asyncio.gather(*calls)])
            assert await draining is True
        np.testing.assert_allclose(found, toy.expected, atol=LIMIT)
        assert application.lifecycle.phase is Phase.STOPPED
        assert runtime.closed
    finally:
        runtime.gate.set()
        await application.abort()


async def test_a_caller_that_leaves_is_not_computed(toy: Toy, served: serving.Served, client: AsyncClient) -> None:
    runtime, engine = toy.runtime, served.application.engine
    runtime.sizes.clear()
    runtime.gate.clear()
    running = asyncio.ensure_future(client.score(PAIRS[:1]))
    await asyncio.to_thread(runtime.inside.acquire)
    # One batch runs, another is prepared beside it: what comes third waits in the queue.
    beside = asyncio.ensure_future(client.score(PAIRS[1:2]))
    await asyncio.to_thread(runtime.inside.acquire)
    gone = asyncio.ensure_future(client.score(PAIRS[2:9]))
    await serving.eventually(lambda: engine.statistics().queued_rows == 7)
    gone.cancel()
    await serving.eventually(lambda: engine.statistics().queued_rows == 0)
    runtime.gate.set()
    await asyncio.gather(running, beside)
    assert sum(rows for rows, _ in runtime.sizes) == 2
