"""What arrives slowly, inflates, lies about its size or is never read takes little, and costs others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import threading
import zlib
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.server.config import ConnectionConfig, RequestLimits, ServerConfig
from pairwire.server.engine import EngineConfig
from pairwire.server.rpc.traffic import FEWEST_PLACES
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import model_pb2, scoring_pb2
from tests.server import serving
from tests.server.engine import toys
from tests.server.raw_http2 import RawConnection, message
from tests.server.test_app import rerank

RERANK = "/pairwire.v1.ScoringService/Rerank"
SMALL = RequestLimits(max_message_bytes=1 << 20, max_answer_bytes=1 << 20)
STALLED = message(b"x" * 100, claimed=1000)
LARGE = scoring_pb2.RerankRequest(query="the", documents=["a dog " * 50_000])
"""300 kB."""


def settings(connections: ConnectionConfig, limits: RequestLimits = SMALL) -> ServerConfig:
    base = serving.config(limits=limits, engine=EngineConfig(workers=1))
    return ServerConfig(
        models=base.models, listen=base.listen, limits=limits, connections=connections, engine=base.engine
    )


@contextlib.asynccontextmanager
async def served(
    connections: ConnectionConfig, runtime: FakeRuntime | None = None
) -> AsyncIterator[tuple[serving.Served, contextlib.AsyncExitStack]]:
    async with (
        serving.serve(settings=settings(connections), models=lambda: [toys.toy_model(runtime)]) as server,
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(serving.PATIENCE_S),
    ):
        yield server, stack


async def connect(server: serving.Served, stack: contextlib.AsyncExitStack) -> RawConnection:
    connection = await RawConnection.open(server.application.port)
    stack.push_async_callback(connection.close)
    return connection


async def test_a_message_that_never_arrives_ends_its_call() -> None:
    async with served(ConnectionConfig(upload_timeout_s=0.2)) as (server, stack):
        connection = await connect(server, stack)
        answer = await connection.answer(connection.call(RERANK, STALLED))
        assert b"the request had not arrived after --upload-timeout-s 0.2" in answer
        count = server.application.metrics.registry.get_sample_value(
            "pairwire_requests_total", {"rpc": "Rerank", "model": "toy", "code": "DEADLINE_EXCEEDED"}
        )
        assert count == 1


async def test_one_connection_gets_half_of_the_places_and_others_are_served_at_once() -> None:
    async with served(ConnectionConfig(upload_timeout_s=600, max_inflight_bytes=1 << 20)) as (server, stack):
        connection = await connect(server, stack)
        streams = [connection.call(RERANK, STALLED) for _ in range(FEWEST_PLACES // 2 + 1)]
        answers = [asyncio.create_task(connection.answer(stream)) for stream in streams[-1:]]
        assert b"arrived too slowly while others waited" in await answers[0]
        assert b"grpc-retry-pushback-ms" in await answers[0]
        assert not set(connection.answers) & set(streams[:-1])
        assert (await server.scoring.Rerank(rerank())).results


async def test_where_all_places_are_taken_those_that_stall_give_way() -> None:
    async with served(ConnectionConfig(upload_timeout_s=600, max_inflight_bytes=1 << 20)) as (server, stack):
        for _ in range(2):
            connection = await connect(server, stack)
            streams = [connection.call(RERANK, STALLED) for _ in range(FEWEST_PLACES // 2 + 1)]
            await connection.answer(streams[-1])  # the others have places
        assert (await server.scoring.Rerank(rerank())).results


async def test_a_message_without_end_is_refused_by_its_first_bytes() -> None:
    async with served(ConnectionConfig()) as (server, stack):
        connection = await connect(server, stack)
        answer = await connection.answer(connection.call(RERANK, message(b"", claimed=60 << 20)))
        assert b"larger than max" in answer


GZIP = [("grpc-encoding", "gzip")]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("request_", [rerank(), LARGE], ids=["small", "large"])
async def test_what_is_compressed_is_answered_as_what_is_not(
    compression: grpc.Compression, request_: scoring_pb2.RerankRequest
) -> None:
    async with served(ConnectionConfig()) as (server, _):
        expected = await server.scoring.Rerank(request_)
        address = f"127.0.0.1:{server.application.port}"
        async with grpc.aio.insecure_channel(address, compression=compression) as channel:
            found = await serving.Served(server.application, channel).scoring.Rerank(request_)
            assert found.results == expected.results
            health = health_pb2_grpc.HealthStub(channel)
            assert await health.Check(health_pb2.HealthCheckRequest(service="model/toy"))


BOMB = gzip.compress(bytes(30 << 20))
"""30 KB that become 30 MiB; gRPC would inflate all of it before it looks at the size."""


@pytest.mark.parametrize(
    ("bomb", "encoding", "sentence"),
    [
        (BOMB, "gzip", b"31457280 bytes exceed --max-message-bytes 1048576"),
        (BOMB[:-4] + (1 << 20).to_bytes(4, "little"), "gzip", b"more than 1048576 bytes exceed"),
        (zlib.compress(bytes(30 << 20)), "deflate", b"more than 1048576 bytes exceed"),
    ],
    ids=["gzip", "gzip that lies about its size", "deflate"],
)
async def test_a_bomb_is_inflated_no_further_than_a_message_may_be_large(
    bomb: bytes, encoding: str, sentence: bytes
) -> None:
    async with served(ConnectionConfig()) as (server, stack):
        connection = await connect(server, stack)
        data = message(bomb, compressed=True)
        call = connection.call(RERANK, data, end=True, headers=[("grpc-encoding", encoding)])
        assert sentence in await connection.answer(call)


async def test_what_is_compressed_counts_as_what_it_becomes() -> None:
    gate = threading.Event()
    text = gzip.compress(LARGE.SerializeToString())
    async with served(ConnectionConfig(max_inflight_bytes=1 << 20), FakeRuntime(gate=gate)) as (server, stack):
        connection = await connect(server, stack)
        calls = [connection.call(RERANK, message(text, compressed=True), end=True, headers=GZIP) for _ in range(4)]
        assert b"no room for" in await connection.answer(calls[3])
        assert server.application.traffic.held_bytes == 3 * len(LARGE.SerializeToString())
        gate.set()
        for call in calls[:3]:
            assert b"grpc-message\x00" in await connection.answer(call)
        await serving.eventually(lambda: server.application.traffic.held_bytes == 0)


@pytest.mark.parametrize(
    "broken",
    [
        b"\x1f\x8b\x08\x00nonsense",
        gzip.compress(rerank().SerializeToString(), mtime=0)[:-9],
        gzip.compress(b"\xff" * 9, mtime=0),
    ],
    ids=["nonsense", "cut short", "no message"],
)
async def test_what_is_no_message_once_it_is_inflated_is_told_so(broken: bytes) -> None:
    async with served(ConnectionConfig()) as (server, stack):
        connection = await connect(server, stack)
        data = message(broken, compressed=True)
        answer = await connection.answer(connection.call(RERANK, data, end=True, headers=GZIP))
        assert any(each in answer for each in (b"gzip is broken", b"end too early", b"are not a pairwire.v1.Rerank"))


async def test_a_call_without_a_message_is_told_so() -> None:
    async with served(ConnectionConfig()) as (server, stack):
        connection = await connect(server, stack)
        assert b"the call has no message" in await connection.answer(connection.call(RERANK, b"", end=True))


async def test_large_requests_count_until_they_are_answered() -> None:
    gate = threading.Event()
    async with served(ConnectionConfig(max_inflight_bytes=1 << 20), FakeRuntime(gate=gate)) as (server, _):
        first = [asyncio.ensure_future(server.scoring.Rerank(LARGE)) for _ in range(3)]
        await serving.eventually(lambda: server.application.engine.statistics().open_requests == 3)
        refused = server.scoring.Rerank(LARGE)
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "no room for" in await refused.details()
        gate.set()
        assert all(answer.results for answer in await asyncio.gather(*first))
        await serving.eventually(lambda: server.application.traffic.held_bytes == 0)
        assert (await server.scoring.Rerank(LARGE)).results


async def test_connections_are_bounded_and_there_is_room_again_when_some_are_closed() -> None:
    async with served(ConnectionConfig(max_connections=3)) as (server, _):
        await server.models.ListModels(model_pb2.ListModelsRequest())
        port = server.application.port
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        first = [asyncio.create_task(reader.read(1)) for reader, _ in others]
        assert sorted(map(len, await asyncio.gather(*first))) == [0, 0, 1, 1]  # two are closed, and two are greeted
        await server.models.ListModels(model_pb2.ListModelsRequest())
        for _, writer in others:
            writer.close()
            await writer.wait_closed()
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            again = serving.Served(server.application, channel).models
            await again.ListModels(model_pb2.ListModelsRequest(), wait_for_ready=True)


def test_connections_leave_files_for_other_things() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 0 < ConnectionConfig().connection_limit() < soft
    assert ConnectionConfig(max_connections=7).connection_limit() == 7


@pytest.mark.parametrize("streams", [1, 3])
async def test_streams_of_a_connection_are_bounded(streams: int) -> None:
    gate = threading.Event()
    async with served(ConnectionConfig(max_streams_per_connection=streams), FakeRuntime(gate=gate)) as (server, _):
        await server.models.ListModels(model_pb2.ListModelsRequest())  # now the client knows the server's settings
        calls = [asyncio.ensure_future(server.scoring.Rerank(rerank())) for _ in range(streams + 5)]
        await serving.eventually(lambda: server.application.engine.statistics().open_requests == streams)
        gate.set()
        assert len(await asyncio.gather(*calls)) == streams + 5
