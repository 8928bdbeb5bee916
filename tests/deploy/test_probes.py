"""What Kubernetes' probes are told, phase by phase: who gets calls, and who is killed."""

from __future__ import annotations

import asyncio
import dataclasses

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.server.app import Application
from pairwire.server.config import DrainConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import scoring_pb2
from tests.deploy.files import KUBERNETES, documents
from tests.server import serving
from tests.server.engine import toys

(DEPLOYMENT,) = documents(KUBERNETES / "base" / "deployment.yaml")
(CONTAINER,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]


async def passes(channel: grpc.aio.Channel, probe: str) -> bool:
    """What the kubelet finds."""
    service = CONTAINER[probe]["grpc"]["service"]
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_while_it_loads_it_has_not_started() -> None:
    application = Application(serving.config(), open_engine=serving.opener(lambda: [toys.toy_model()]))
    await application.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        assert not await passes(channel, "startupProbe")
        await application.load()
        assert await passes(channel, "startupProbe")
    await application.abort()


async def test_a_model_that_fails_costs_it_its_calls_and_not_its_life() -> None:
    runtime = FakeRuntime()
    settings = serving.config(engine=EngineConfig(workers=1, probe_interval_s=0.01))
    async with serving.serve(settings=settings, models=lambda: [toys.toy_model(runtime)]) as served:
        assert await passes(served.channel, "readinessProbe")
        runtime.broken = True
        call = served.scoring.Rerank(scoring_pb2.RerankRequest(query="the", documents=["the"]))
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert not await passes(served.channel, "readinessProbe")
        assert await passes(served.channel, "livenessProbe")
        runtime.broken = False


async def test_a_drain_takes_its_calls_away_while_it_still_answers() -> None:
    settings = dataclasses.replace(serving.config(), shutdown=DrainConfig(drain_delay_s=3600))
    async with serving.serve(settings=settings, models=lambda: [toys.toy_model()]) as served:
        assert await passes(served.channel, "readinessProbe")
        draining = asyncio.create_task(served.application.drain())
        await asyncio.sleep(0)
        assert not await passes(served.channel, "readinessProbe")
        assert (await served.scoring.Rerank(scoring_pb2.RerankRequest(query="the", documents=["the"]))).results
        draining.cancel()
