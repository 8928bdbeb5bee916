"""Calls of many requests, when the queue is full, the server drains, or there are too many of them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from pairwire.foreign import tei_pb2
from pairwire.server.config import ConnectionConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.runtime.fake import FakeRuntime
from tests.server import serving, toy_packages
from tests.server.compat.foreign import kserve, request, tei, texts
from tests.server.engine import toys


async def test_a_full_queue_holds_a_stream_back_and_does_not_end_it() -> None:
    gate = threading.Event()
    engine = EngineConfig(workers=1, queue_tokens=40)
    settings = serving.config(engine=engine)
    async with serving.serve(settings=settings, models=lambda: [toys.toy_model(FakeRuntime(gate=gate))]) as served:
        asked = [tei_pb2.PredictRequest(inputs=toys.unlike(6)) for _ in range(50)]
        answers = tei(served.channel, "PredictStream")(iter(asked))
        await serving.eventually(lambda: served.application.engine.statistics().queued_rows > 2)
        other = kserve(served.channel, "ModelInfer")(request("toy", texts("text", [toys.unlike(30)])))
        assert await other.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # for who has nothing under way
        gate.set()
        assert len([answer async for answer in answers]) == 50


async def test_a_drain_ends_streams_that_wait_and_answers_what_they_sent(scorer_package: Path) -> None:
    async with serving.serve(scorer_package) as served:
        more = asyncio.Event()

        async def requests() -> AsyncIterator[tei_pb2.PredictRequest]:
            for number in range(5):
                yield tei_pb2.PredictRequest(inputs=f"fox {number}")
            await more.wait()

        stream = tei(served.channel, "PredictStream")(requests())
        assert [bool((await stream.read()).predictions) for _ in range(5)] == [True] * 5
        async with asyncio.timeout(serving.PATIENCE_S):
            assert await served.application.drain()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining; open the stream again, to another server" in (await stream.details() or "")
        more.set()


async def test_open_streams_are_bounded(scorer_package: Path) -> None:
    settings = replace(serving.config(scorer_package), connections=ConnectionConfig(max_open_streams=4))
    async with serving.serve(settings=settings) as served:
        stop = asyncio.Event()

        async def requests() -> AsyncIterator[tei_pb2.PredictRequest]:
            yield tei_pb2.PredictRequest(inputs="fox")
            await stop.wait()

        method = tei(served.channel, "PredictStream")
        kept = [method(requests()) for _ in range(2)]
        for each in kept:
            assert (await each.read()).predictions
        third = method(requests())
        assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "of --max-open-streams 4; end some" in (await third.details() or "")
        stop.set()
        for each in kept:
            assert await each.read() is grpc.aio.EOF
        assert (await method(iter([tei_pb2.PredictRequest(inputs="a")])).read()).predictions


@pytest.mark.parametrize("service", ["tei", "kserve"])
async def test_each_request_of_a_stream_is_counted(scorer_package: Path, service: str) -> None:
    async with serving.serve(scorer_package) as served:
        if service == "tei":
            answers = tei(served.channel, "PredictStream")(iter([tei_pb2.PredictRequest(inputs="a")] * 3))
        else:
            asked = request("scorer", texts("text", ["a"]))
            answers = kserve(served.channel, "ModelStreamInfer")(iter([asked] * 3))
        assert len([answer async for answer in answers]) == 3
        rpc = {"tei": "tei.PredictStream", "kserve": "kserve.ModelStreamInfer"}[service]
        labels = {"rpc": rpc, "model": "scorer", "code": "OK"}
        assert served.application.metrics.registry.get_sample_value("pairwire_requests_total", labels) == 3


async def test_large_answers_that_are_not_read_hold_a_stream_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = toy_packages.write_bi_encoder(tmp_path / "wide", name="wide", dimensions=2000)
    asked = request("wide", texts("text", [f"fox {number}" for number in range(100)]))  # 800 kB each
    async with serving.serve(package) as served:
        labels = {"rpc": "kserve.ModelStreamInfer", "model": "wide", "code": "OK"}

        def answered() -> float:
            return served.application.metrics.registry.get_sample_value("pairwire_requests_total", labels) or 0

        stream = kserve(served.channel, "ModelStreamInfer")(iter([asked] * 1000))
        assert (await stream.read()).infer_response.outputs
        await serving.eventually(lambda: answered() > 3)
        before = -1.0
        while before != answered():  # it ends when answers are held back, and with them requests
            before = answered()
            await asyncio.sleep(0.3)
        assert before < 200
        stream.cancel()
        await serving.eventually(lambda: served.application.traffic.held_bytes == 0)
        await serving.eventually(lambda: served.application.traffic.inside == 0)
    assert not serving.logged(caplog.records, logging.ERROR)


async def test_messages_that_are_small_and_many_count_too(scorer_package: Path) -> None:
    limits = ConnectionConfig(max_inflight_bytes=1 << 20)
    settings = replace(serving.config(scorer_package), connections=limits)
    async with serving.serve(settings=settings) as served:
        message = tei_pb2.RerankStreamRequest(query="a", text="x" * 200_000, truncate=True)
        told = asyncio.Event()

        async def requests() -> AsyncIterator[tei_pb2.RerankStreamRequest]:
            for _ in range(7):
                yield message
            await told.wait()  # a client that still sends sees INTERNAL: its own message that was not taken

        stream = tei(served.channel, "RerankStream")(requests())
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "no room for" in (await stream.details() or "")
        told.set()
        await serving.eventually(lambda: served.application.traffic.held_bytes == 0)


@pytest.mark.parametrize("ends", [True, False], ids=["the error ends the stream", "the stream goes on"])
async def test_a_large_request_that_is_refused_counts_no_more(scorer_package: Path, ends: bool) -> None:
    large = request("scorer", texts("query", ["a"] * 3), texts("documents", ["x" * 300_000] * 2))
    metadata = (("triton_grpc_error", "true"),) if ends else ()
    async with serving.serve(scorer_package) as served:
        stream = kserve(served.channel, "ModelStreamInfer")(iter([large] * 3), metadata=metadata)
        if ends:
            assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert ["query: 3 texts" in answer.error_message async for answer in stream] == [True] * 3
        await serving.eventually(lambda: served.application.traffic.held_bytes == 0)


async def test_a_caller_that_leaves_before_its_answer_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    settings = serving.config(engine=EngineConfig(workers=1))
    async with serving.serve(settings=settings, models=lambda: [toys.toy_model(FakeRuntime(gate=gate))]) as served:
        rerank, stream = tei(served.channel, "Rerank"), tei(served.channel, "PredictStream")
        calls = [rerank(tei_pb2.RerankRequest(query="a", texts=[toys.unlike(3)])) for _ in range(5)]
        calls.append(stream(iter([tei_pb2.PredictRequest(inputs=toys.unlike(3)) for _ in range(5)])))
        await serving.eventually(lambda: served.application.engine.statistics().open_requests == 10)
        for call in calls:
            call.cancel()
        gate.set()
        await serving.eventually(lambda: served.application.traffic.inside == 0)
        assert served.application.traffic.held_bytes == 0
    assert not serving.logged(caplog.records, logging.ERROR)
