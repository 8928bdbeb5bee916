"""grpc.health.v1 over a real server, through the life of an application."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.server.app import Application
from pairwire.server.rpc.health import HealthBoard
from tests.server import serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def asked(name: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


async def test_probes_get_an_answer_while_models_load_and_the_turn_is_watched_to_the_end(scorer_package: Path) -> None:
    application = Application(serving.config(scorer_package))
    await application.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(asked())).status == NOT_SERVING
        whole, model = health.Watch(asked()), health.Watch(asked("model/scorer"))
        assert (await whole.read()).status == NOT_SERVING
        assert (await model.read()).status == SERVICE_UNKNOWN
        await application.load()
        assert (await whole.read()).status == SERVING
        assert (await model.read()).status == SERVING
        assert await application.drain()
        for watch in (whole, model):
            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() is grpc.StatusCode.OK


async def test_every_service_and_model_has_a_health_of_its_own(scorer: serving.Served) -> None:
    health = health_pb2_grpc.HealthStub(scorer.channel)
    listed = await health.List(health_pb2.HealthListRequest())
    assert {name: answer.status for name, answer in listed.statuses.items()} == {
        "": SERVING,
        "pairwire.v1.ScoringService": SERVING,
        "pairwire.v1.EmbeddingService": NOT_SERVING,  # no bi-encoder is loaded
        "pairwire.v1.ModelService": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "tei.v1.Info": SERVING,
        "tei.v1.Embed": NOT_SERVING,
        "tei.v1.Predict": SERVING,
        "tei.v1.Rerank": SERVING,
        "tei.v1.Tokenize": SERVING,
        "model/scorer": SERVING,
    }
    for name, answer in listed.statuses.items():
        assert (await health.Check(asked(name))).status == answer.status


async def test_an_unknown_name_is_not_found_and_the_known_ones_are_told(scorer: serving.Served) -> None:
    health = health_pb2_grpc.HealthStub(scorer.channel)
    with pytest.raises(grpc.aio.AioRpcError, match="'model/scorer'") as caught:
        await health.Check(asked("nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_closed_board_serves_nothing_again() -> None:
    board = HealthBoard()
    board.set({"": True})
    assert board.serving("") is True
    board.close()
    board.set({"": True, "new": True})
    assert board.serving("") is False
    assert board.serving("new") is None
    assert board.closed


async def test_a_change_wakes_those_who_wait() -> None:
    board = HealthBoard()
    waiting = asyncio.create_task(board.changed.wait())
    board.set({"": True})
    assert await waiting
    assert not board.changed.is_set()


@pytest.mark.parametrize(
    "method",
    [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/List",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_bytes_that_are_no_request_are_told_so_and_leave_no_traceback(
    method: str, scorer: serving.Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(serving.PATIENCE_S):
        call = scorer.channel.stream_stream(f"/{method}")(iter([b"\xff\xff\xff"]))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the bytes are not a grpc." in await call.details()
    assert not caplog.records
