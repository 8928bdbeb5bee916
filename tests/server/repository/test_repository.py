"""Models that come, are exchanged and go while a server is under load: every answer right, none lost."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest

from benchmarks.chaos.faults import Fault
from pairwire.foreign import kserve_pb2
from pairwire.server.app import Application
from pairwire.server.config import ListenConfig, RepositoryConfig, ScalingConfig, ServerConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.errors import ConfigInvalid
from pairwire.v1 import model_pb2, scoring_pb2
from tests.server import serving
from tests.server.toy_packages import write_bi_encoder, write_cross_encoder

ENGINE = EngineConfig(warmup_s=0.01, workers=2, score_cache_bytes=1 << 20)
SCALE = 2.0
"""What the second version's logits are, in those of the first."""


def settings(root: Path, *, engine: EngineConfig = ENGINE, allowed: bool = True, http_port: int = -1) -> ServerConfig:
    """A server of a repository."""
    return ServerConfig(
        listen=ListenConfig(port=0, metrics_port=-1, http_port=http_port),
        repository=RepositoryConfig(repository=root, allow_model_control=allowed),
        engine=engine,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one model with one version."""
    write_cross_encoder(tmp_path / "repository" / "reranker" / "1", name="whatever")
    return tmp_path / "repository"


@pytest.fixture
async def served(root: Path) -> AsyncIterator[serving.Served]:
    """A server of that."""
    async with serving.serve(settings=settings(root)) as running:
        yield running


def load(served: serving.Served, model: str = "reranker", version: str = "") -> grpc.aio.UnaryUnaryCall:
    """LoadModel, begun."""
    return served.models.LoadModel(model_pb2.LoadModelRequest(model=model, version=version))


def unload(served: serving.Served, model: str = "reranker") -> grpc.aio.UnaryUnaryCall:
    """UnloadModel, begun."""
    return served.models.UnloadModel(model_pb2.UnloadModelRequest(model=model))


async def logits(served: serving.Served, documents: Sequence[str], model: str = "reranker") -> list[float]:
    """Of a query and each document."""
    request = scoring_pb2.ScoreRequest(model=model, activation=scoring_pb2.ACTIVATION_IDENTITY)
    request.query_documents.query, request.query_documents.documents[:] = "how do I bake bread", documents
    response = await served.scoring.Score(request)
    assert response.model == model
    return list(response.scores)


async def code_of(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def shown(served: serving.Served) -> str:
    """The metrics."""
    return generate_latest(served.application.metrics.registry).decode()


@contextlib.asynccontextmanager
async def load_of(served: serving.Served, seen: collections.Counter[str], old: Sequence[float]) -> AsyncIterator[None]:
    """Clients that never stop asking, and check every answer: it is wholly the old version's or wholly the new's."""
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            scores = await logits(served, DOCUMENTS)
            for name, scale in (("old", 1.0), ("new", SCALE)):
                if np.allclose(scores, np.array(old) * scale, rtol=1e-5):
                    seen[name] += 1
                    break
            else:
                raise AssertionError(f"{scores} are of neither version, {old}")

    clients = [asyncio.create_task(ask()) for _ in range(8)]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*clients)


LONG = "mix flour and water " * 20
DOCUMENTS = ["mix flour, water and baking soda", "the lazy dog", "prices rose", "mix flour"]


async def test_a_version_is_exchanged_under_load_and_every_answer_is_right(served: serving.Served, root: Path) -> None:
    old = await logits(served, DOCUMENTS)
    seen: collections.Counter[str] = collections.Counter()
    async with load_of(served, seen, old):
        await serving.eventually(lambda: seen["old"] > 50)
        write_cross_encoder(root / "reranker" / "2", name="whatever", scale=SCALE)
        answer = await load(served)
        assert (answer.changed, answer.summary.version) == (True, "2")
        # The score cache is on, and knows these pairs of the old version.
        assert await logits(served, DOCUMENTS) == pytest.approx([SCALE * each for each in old], rel=1e-5)
        before = seen["new"]
        await serving.eventually(lambda: seen["new"] > before + 50)
        assert (await load(served, version="1")).summary.version == "1"  # and back again
        assert await logits(served, DOCUMENTS) == pytest.approx(old, rel=1e-5)
    assert 'pairwire_model_changes_total{change="exchanged",model="reranker"} 2.0' in shown(served)
    assert 'pairwire_model_version{model="reranker"} 1.0' in shown(served)


async def test_the_same_content_is_not_loaded_again(served: serving.Served, root: Path) -> None:
    assert not (await load(served)).changed
    shutil.copytree(root / "reranker" / "1", root / "reranker" / "2")
    answer = await load(served)
    assert (answer.changed, answer.summary.version) == (False, "1")


async def test_what_waits_for_a_model_is_answered_when_it_is_unloaded(root: Path) -> None:
    write_cross_encoder(root / "slow", work=200)
    engine = EngineConfig(warmup_s=0.01, workers=1, queue_s=1e6)
    async with serving.serve(settings=settings(root, engine=engine)) as served:
        calls = [
            asyncio.create_task(logits(served, [f"{n} {text} {LONG}" for n in range(8)], "slow")) for text in range(20)
        ]
        await serving.eventually(lambda: served.application.engine.statistics().queued_rows > 8)
        await unload(served, "slow")
        for call in calls:
            assert len(await call) == 8
        code, said = await code_of(served.models.GetModel(model_pb2.GetModelRequest(model="slow")))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "'reranker' (cross-encoder)" in said
        health = health_pb2_grpc.HealthStub(served.channel)
        check = health.Check(health_pb2.HealthCheckRequest(service="model/slow"))
        assert (await code_of(check))[0] is grpc.StatusCode.NOT_FOUND
        gone = [line for line in shown(served).splitlines() if 'model="slow"' in line]
        assert [line.split("{")[0] for line in gone] == ["pairwire_model_changes_total"] * 2 + [
            "pairwire_model_changes_created"
        ] * 2
        assert (await load(served, "slow")).changed
        assert len(await logits(served, DOCUMENTS, "slow")) == len(DOCUMENTS)


async def test_the_last_model_may_go_and_come_again(served: serving.Served) -> None:
    await unload(served)
    health = health_pb2_grpc.HealthStub(served.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not (await served.models.ListModels(model_pb2.ListModelsRequest())).models
    assert (await code_of(unload(served)))[0] is grpc.StatusCode.NOT_FOUND
    await load(served)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    assert len(await logits(served, DOCUMENTS)) == len(DOCUMENTS)


def damaged(directory: Path) -> None:
    """A package whose graph is not what the manifest says."""
    write_cross_encoder(directory)
    with (directory / "cpu-fp32.onnx").open("ab") as file:
        file.write(b"more")


def failing(directory: Path) -> None:
    """One that is whole, and whose graph cannot be run."""
    write_cross_encoder(directory, faults={Fault.RAISE: "[PAD]"})


def half_copied(directory: Path) -> None:
    """One whose graph is still missing."""
    write_cross_encoder(directory)
    (directory / "cpu-fp32.onnx").unlink()


def of_another_kind(directory: Path) -> None:
    """One that is whole, and does something else."""
    write_bi_encoder(directory)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (damaged, "sha256"),
        (failing, "cannot be loaded and run"),
        (half_copied, "missing"),
        (of_another_kind, "give it another name"),
    ],
)
async def test_a_bad_version_leaves_the_old_one_serving_and_says_why(
    make: object, why: str, served: serving.Served, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = await logits(served, DOCUMENTS)
    assert callable(make)
    make(root / "reranker" / "2")
    code, said = await code_of(load(served))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert why in said
    assert said.endswith("version 1 goes on")
    assert why in caplog.text
    assert await logits(served, DOCUMENTS) == old
    assert 'pairwire_model_changes_total{change="refused",model="reranker"} 1.0' in shown(served)
    index = served.channel.unary_unary(
        "/inference.GRPCInferenceService/RepositoryIndex",
        request_serializer=kserve_pb2.RepositoryIndexRequest.SerializeToString,
        response_deserializer=kserve_pb2.RepositoryIndexResponse.FromString,
    )
    newest, oldest = (await index(kserve_pb2.RepositoryIndexRequest())).models
    assert (newest.version, newest.state, oldest.version, oldest.state) == ("2", "UNAVAILABLE", "1", "READY")
    assert why in newest.reason


async def test_a_start_takes_the_newest_version_that_can_be_loaded(root: Path) -> None:
    write_cross_encoder(root / "reranker" / "9", scale=SCALE)
    failing(root / "reranker" / "10")
    half_copied(root / "reranker" / "11")
    write_cross_encoder(root / ".half" / "1")
    (root / "notes.txt").write_text("no model")
    write_bi_encoder(root / "embedder")
    async with serving.serve(settings=settings(root)) as served:
        models = (await served.models.ListModels(model_pb2.ListModelsRequest())).models
        assert [(each.name, each.version) for each in models] == [("embedder", "1"), ("reranker", "9")]


async def test_a_repository_without_a_model_that_loads_is_no_start(tmp_path: Path) -> None:
    half_copied(tmp_path / "reranker" / "1")
    application = Application(settings(tmp_path))
    await application.listen()
    try:
        with pytest.raises(ConfigInvalid, match="no model to serve"):
            await application.load()
    finally:
        await application.abort()


async def test_a_directory_that_is_deleted_while_it_serves_serves_on(served: serving.Served, root: Path) -> None:
    old = await logits(served, DOCUMENTS)
    shutil.rmtree(root / "reranker")
    assert await logits(served, DOCUMENTS) == old
    code, said = await code_of(load(served))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "there is none at all" in said
    assert await logits(served, DOCUMENTS) == old


async def test_vectors_of_documents_are_of_the_version_that_serves(served: serving.Served, root: Path) -> None:
    write_bi_encoder(root / "embedder" / "1", dimensions=8)
    await load(served, "embedder")
    request = scoring_pb2.RerankRequest(query="bread", documents=DOCUMENTS, model="reranker")
    request.first_stage.model, request.first_stage.keep = "embedder", 4
    for _ in range(2):  # the second finds them in the cache
        first = await served.scoring.Rerank(request)
    assert first.first_stage.cached == 4
    write_bi_encoder(root / "embedder" / "2", dimensions=16)
    await load(served, "embedder")
    second = await served.scoring.Rerank(request)
    assert second.first_stage.cached == 0


async def test_nobody_may_load_where_that_is_off(root: Path) -> None:
    async with serving.serve(settings=settings(root, allowed=False)) as served:
        for call in (load(served), unload(served)):
            code, said = await code_of(call)
            assert code is grpc.StatusCode.UNIMPLEMENTED
            assert "--allow-model-control" in said


async def test_a_package_of_the_command_line_stays(root: Path, tmp_path: Path) -> None:
    given = write_cross_encoder(tmp_path / "given", name="given")
    write_cross_encoder(root / "given" / "1")
    shutil.move(root / "given", root / ".given")
    base = settings(root)
    both = ServerConfig(models=(given,), listen=base.listen, repository=base.repository, engine=base.engine)
    async with serving.serve(settings=both) as served:
        shutil.move(root / ".given", root / "given")
        for call in (load(served, "given"), unload(served, "given")):
            code, said = await code_of(call)
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "was given to the server as a package" in said


@pytest.mark.parametrize("model", ["..", "../secret", "reranker/1", "/", ".", "reranker\0"])
async def test_a_name_reaches_nothing_outside_the_directory(model: str, served: serving.Served) -> None:
    assert (await code_of(load(served, model)))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_drain_does_not_wait_for_ever_for_a_load_and_loses_nothing(root: Path) -> None:
    application = Application(settings(root))
    await application.listen()
    await application.load()
    write_cross_encoder(root / "reranker" / "2", scale=SCALE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        served = serving.Served(application, channel)
        asked = load(served)
        scores = asyncio.create_task(logits(served, DOCUMENTS))
        await serving.eventually(lambda: application.traffic.inside == 2 or asked.done())
        assert await application.drain()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await asked
        assert await asked.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        assert len(await scores) == len(DOCUMENTS)


async def test_who_asked_may_leave_and_the_load_goes_on(served: serving.Served, root: Path) -> None:
    write_cross_encoder(root / "reranker" / "2", scale=SCALE)
    asked = load(served)
    await serving.eventually(
        lambda: asked.done() or any(each.name == "pairwire-load" for each in threading.enumerate())
    )
    asked.cancel()
    await serving.eventually(lambda: 'change="exchanged"' in shown(served))
    assert served.application.engine.models["reranker"].version == "2"


def test_several_processes_are_not_changed_by_a_call(root: Path) -> None:
    both = ServerConfig(
        repository=RepositoryConfig(repository=root, allow_model_control=True), scaling=ScalingConfig(processes=2)
    )
    with pytest.raises(ConfigInvalid, match="a call reaches one of the 2 processes"):
        both.check_models()


async def test_an_alias_shares_calls_out_and_the_answer_names_the_model(root: Path) -> None:
    write_cross_encoder(root / "canary" / "1", scale=SCALE)
    engine = EngineConfig(warmup_s=0.01, workers=1, aliases=("live=reranker:60", "canary:40"))
    async with serving.serve(settings=settings(root, engine=engine)) as served:
        own = {model: await logits(served, DOCUMENTS, model) for model in ("reranker", "canary")}
        request = scoring_pb2.ScoreRequest(model="live", activation=scoring_pb2.ACTIVATION_IDENTITY)
        request.query_documents.query, request.query_documents.documents[:] = "how do I bake bread", DOCUMENTS
        answers = [await served.scoring.Score(request) for _ in range(400)]
        for answer in answers:
            assert list(answer.scores) == pytest.approx(own[answer.model], rel=1e-5)
        shares = collections.Counter(answer.model for answer in answers)
        assert 60 < shares["canary"] < 260  # 160 are expected; ten standard deviations lie between
        assert 'pairwire_requests_total{code="OK",model="live",rpc="Score"} 400.0' in shown(served)
        await unload(served, "canary")  # its share goes to the others
        assert (await served.scoring.Score(request)).model == "reranker"
        await unload(served)
        code, said = await code_of(served.scoring.Score(request))
        assert code is grpc.StatusCode.NOT_FOUND
        assert said == "'live' stands for 'reranker', 'canary', which is not loaded"
        write_cross_encoder(root / "live" / "1")
        code, said = await code_of(load(served, "live"))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "is an alias" in said


async def test_the_calls_of_kserve_do_the_same_over_http(root: Path) -> None:
    httpx = pytest.importorskip("httpx", reason="the extra http is not installed")
    async with serving.serve(settings=settings(root, http_port=0)) as served:
        address = f"http://127.0.0.1:{served.application.http_port}/v2/repository"
        write_cross_encoder(root / "reranker" / "2", scale=SCALE)
        async with httpx.AsyncClient(base_url=address, timeout=serving.PATIENCE_S) as client:
            assert (await client.post("/models/reranker/load")).status_code == 200
            assert served.application.engine.models["reranker"].version == "2"
            older = await client.post("/models/reranker/load", json={"parameters": {"version": "1"}})
            assert older.status_code == 200
            assert served.application.engine.models["reranker"].version == "1"
            refused = await client.post("/models/reranker/load", json={"parameters": {"config": "{}"}})
            assert (refused.status_code, "its package says" in refused.json()["error"]) == (400, True)
            assert (await client.post("/models/nope/load")).status_code == 404
            gone = await client.post("/models/reranker/unload", json={"parameters": {"unload_dependents": False}})
            assert gone.status_code == 200
            index = (await client.post("/index")).json()
            assert [(row["version"], row["state"]) for row in index] == [("2", "UNAVAILABLE"), ("1", "UNAVAILABLE")]
