"""A whole server in this process, over a runtime that fails, blocks and dies when told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.server.app import Application
from pairwire.server.engine import EngineConfig
from pairwire.server.errors import NotReady, PackageInvalid
from pairwire.server.lifecycle import Phase
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import model_pb2, scoring_pb2
from tests.server import serving
from tests.server.engine import toys

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ONE_WORKER = EngineConfig(workers=1, queue_tokens=64, batch_tokens=8, probe_interval_s=0.01)


def rerank(documents: int = 1) -> scoring_pb2.RerankRequest:
    """Each document makes a row of 8 tokens with its padding."""
    return scoring_pb2.RerankRequest(query="the", documents=[toys.unlike(1) for _ in range(documents)])


class Toy:
    """A server of one toy model, and the runtime below it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.dies = False
        self.runtime = FakeRuntime(gate=self.gate, on_run=self._run)

    def _run(self, batch: TokenBatch) -> None:
        if self.dies:
            raise SystemExit("something that nobody foresaw")

    async def wait_started(self) -> None:
        """Returns once a worker is inside the runtime."""
        await asyncio.to_thread(self.runtime.started.acquire)


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
async def served(toy: Toy) -> AsyncIterator[serving.Served]:
    settings = serving.config(engine=ONE_WORKER, drain_timeout_s=0.05)
    async with serving.serve(settings=settings, models=lambda: [toys.toy_model(toy.runtime)]) as served:
        yield served
        toy.gate.set()


async def test_before_the_models_are_loaded_rpcs_are_unavailable(scorer_package: Path) -> None:
    application = Application(serving.config(scorer_package))
    await application.listen()
    with pytest.raises(NotReady):
        _ = application.engine
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        call = serving.Served(application, channel).scoring.Rerank(rerank())
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "loading its models" in await call.details()
    await application.abort()
    assert application.lifecycle.phase is Phase.STOPPED


async def test_a_package_that_is_broken_ends_the_start(tmp_path: Path) -> None:
    application = Application(serving.config(tmp_path))
    await application.listen()
    with pytest.raises(PackageInvalid, match=r"manifest\.json"):
        await application.load()
    await application.abort()
    assert application.lifecycle.phase is Phase.STOPPED


async def test_a_failing_model_turns_its_health_and_turns_it_back_when_it_recovers(
    toy: Toy, served: serving.Served
) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "model/toy")]
    for watch in watches:
        assert (await watch.read()).status == SERVING
    toy.runtime.broken = True
    call = served.scoring.Rerank(rerank())
    assert await call.code() is grpc.StatusCode.INTERNAL
    assert "model 'toy' failed while it ran (RuntimeError)" in await call.details()
    for watch in watches:
        assert (await watch.read()).status == NOT_SERVING
    toy.runtime.broken = False
    for watch in watches:
        assert (await watch.read()).status == SERVING
        watch.cancel()
    assert (await served.scoring.Rerank(rerank())).results


async def test_a_worker_that_dies_fails_what_is_pending_and_tells_the_owner(toy: Toy, served: serving.Served) -> None:
    toy.gate.clear()
    calls = [served.scoring.Rerank(rerank()) for _ in range(3)]
    waiting = [asyncio.ensure_future(call.code()) for call in calls]
    await toy.wait_started()
    await serving.eventually(lambda: served.application.engine.statistics().open_requests == 3)
    toy.dies = True
    toy.gate.set()
    assert await asyncio.gather(*waiting) == [grpc.StatusCode.INTERNAL] * 3
    async with asyncio.timeout(serving.PATIENCE_S):
        await served.application.failed.wait()
    check = await health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
    assert check.status == NOT_SERVING


async def test_over_capacity_is_refused_with_push_back_and_later_served(toy: Toy, served: serving.Served) -> None:
    toy.gate.clear()
    running = asyncio.ensure_future(served.scoring.Rerank(rerank()))
    await toy.wait_started()
    queued = asyncio.ensure_future(served.scoring.Rerank(rerank(8)))
    await serving.eventually(lambda: served.application.engine.statistics().queued_tokens > 0)
    refused = served.scoring.Rerank(rerank(8))
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(await refused.trailing_metadata())
    assert int(trailers["grpc-retry-pushback-ms"]) >= 1
    toy.gate.set()
    assert len((await queued).results) == 8
    assert (await running).results
    assert (await served.scoring.Rerank(rerank(8))).results


async def test_more_than_the_whole_queue_holds_is_bad_input(served: serving.Served) -> None:
    call = served.scoring.Rerank(rerank(100))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await call.details()).startswith("documents: ")


async def test_what_has_expired_in_the_queue_is_never_run(toy: Toy, served: serving.Served) -> None:
    toy.gate.clear()
    running = asyncio.ensure_future(served.scoring.Rerank(rerank()))
    await toy.wait_started()
    late = served.scoring.Rerank(rerank(5), timeout=1)  # long enough to reach the server, however busy the machine
    assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await serving.eventually(lambda: served.application.engine.statistics().queued_rows == 0)
    toy.gate.set()
    assert (await running).results
    assert sum(int((batch.lengths > 0).sum()) for batch in toy.runtime.batches) == 1
    count = served.application.metrics.registry.get_sample_value(
        "pairwire_requests_total", {"rpc": "Rerank", "model": "toy", "code": "DEADLINE_EXCEEDED"}
    )
    assert count == 1


async def test_what_is_cancelled_leaves_the_queue_and_is_never_run(toy: Toy, served: serving.Served) -> None:
    toy.gate.clear()
    running = asyncio.ensure_future(served.scoring.Rerank(rerank()))
    await toy.wait_started()
    gone = served.scoring.Rerank(rerank(5))
    waiting = asyncio.ensure_future(gone.code())
    await serving.eventually(lambda: served.application.engine.statistics().queued_rows == 5)
    gone.cancel()
    assert await waiting is grpc.StatusCode.CANCELLED
    await serving.eventually(lambda: served.application.engine.statistics().queued_rows == 0)
    toy.gate.set()
    assert (await running).results
    assert sum(int((batch.lengths > 0).sum()) for batch in toy.runtime.batches) == 1


async def test_a_drain_serves_what_was_accepted_and_ends_by_itself(toy: Toy, scorer_package: Path) -> None:
    application = Application(
        serving.config(engine=ONE_WORKER), open_engine=serving.opener(lambda: [toys.toy_model(toy.runtime)])
    )
    await application.listen()
    await application.load()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        scoring = serving.Served(application, channel).scoring
        toy.gate.clear()
        accepted = [asyncio.ensure_future(scoring.Rerank(rerank(2))) for _ in range(3)]
        await serving.eventually(lambda: application.engine.statistics().open_requests == 3)
        draining = asyncio.create_task(application.drain())
        await serving.eventually(lambda: application.lifecycle.phase is Phase.DRAINING)
        toy.gate.set()
        assert [len((await call).results) for call in accepted] == [2, 2, 2]
        assert await draining is True
    assert application.lifecycle.phase is Phase.STOPPED
    assert toy.runtime.closed


async def test_a_drain_beyond_its_limit_fails_what_is_left_and_says_so(toy: Toy, served: serving.Served) -> None:
    toy.gate.clear()
    running = served.scoring.Rerank(rerank())
    queued = served.scoring.Rerank(rerank(2))
    codes = [asyncio.ensure_future(call.code()) for call in (running, queued)]
    await serving.eventually(lambda: served.application.engine.statistics().open_requests == 2)
    draining = asyncio.create_task(served.application.drain())
    assert await codes[1] is grpc.StatusCode.UNAVAILABLE
    toy.gate.set()  # the batch that runs cannot be interrupted
    assert await draining is False
    assert await codes[0] in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)


async def test_rpcs_that_need_no_engine_are_measured_too(served: serving.Served) -> None:
    await served.models.ListModels(model_pb2.ListModelsRequest())
    value = served.application.metrics.registry.get_sample_value(
        "pairwire_requests_total", {"rpc": "ListModels", "model": "", "code": "OK"}
    )
    assert value == 1
