"""Real signals on a real process under load: what was accepted is answered."""

from __future__ import annotations

import asyncio
import collections
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server import serving
from tests.server.requests import work

pytestmark = pytest.mark.slow

SMALL = scoring_pb2.RerankRequest(query="how do I bake bread", documents=["mix flour and water"] * 4)


MEDIUM = [work(512, call) for call in range(4)]
LARGE = work(2048)
"""Seconds of work."""

NEVER_ACCEPTED = ("failed to connect", "draining", "GOAWAY", "too_many_pings")


async def ask_until_refused(server: serving.Process, codes: collections.Counter[str], enough: asyncio.Event) -> None:
    """A client that sends its next request when the last is answered, until the server is gone."""
    async with server.channel() as channel:
        scoring = ScoringServiceStub(channel)
        while True:
            try:
                response = await scoring.Rerank(SMALL)
            except grpc.aio.AioRpcError as error:
                codes[f"{error.code().name}: {error.details()}"] += 1
                return
            assert len(response.results) == 4
            codes["OK"] += 1
            if codes["OK"] >= 200:
                enough.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_under_load_loses_no_accepted_request(number: signal.Signals, slow_package: Path) -> None:
    codes: collections.Counter[str] = collections.Counter()
    enough = asyncio.Event()
    async with serving.start(slow_package) as server:
        clients = [asyncio.create_task(ask_until_refused(server, codes, enough)) for _ in range(4)]
        await enough.wait()
        server.signal(number)
        await asyncio.gather(*clients)
        assert await server.exit_code() == 0
    lost = {code for code in codes if code != "OK" and not any(words in code for words in NEVER_ACCEPTED)}
    assert not lost, codes
    assert all(code == "OK" or code.startswith("UNAVAILABLE") for code in codes), codes


async def test_all_that_is_inside_at_the_signal_is_answered(slow_package: Path) -> None:
    async with serving.start(slow_package, "--workers", "1") as server, server.channel() as channel:
        scoring = ScoringServiceStub(channel)
        calls = [asyncio.ensure_future(scoring.Rerank(request)) for request in MEDIUM]
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 4)
        server.signal(signal.SIGTERM)
        assert [len(response.results) for response in await asyncio.gather(*calls)] == [512] * 4
        assert await server.exit_code() == 0


async def test_health_turns_first_and_requests_are_served_during_the_delay(slow_package: Path) -> None:
    async with serving.start(slow_package, "--drain-delay-s", "3") as server, server.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert len((await ScoringServiceStub(channel).Rerank(SMALL)).results) == 4
        assert await server.exit_code() == 0


async def test_work_beyond_the_drain_limit_is_failed_and_the_exit_code_tells(slow_package: Path) -> None:
    async with serving.start(slow_package, "--drain-timeout-s", "0.1") as server, server.channel() as channel:
        call = ScoringServiceStub(channel).Rerank(LARGE)
        waiting = asyncio.ensure_future(call.code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value > 0)
        server.signal(signal.SIGTERM)
        assert await waiting is grpc.StatusCode.UNAVAILABLE
        assert await server.exit_code() == 1


async def test_a_second_signal_ends_the_process_at_once(slow_package: Path) -> None:
    async with serving.start(slow_package) as server, server.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = ScoringServiceStub(channel).Rerank(LARGE)
        waiting = asyncio.ensure_future(call.code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value > 0)
        server.signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 1
        assert await waiting is grpc.StatusCode.UNAVAILABLE
