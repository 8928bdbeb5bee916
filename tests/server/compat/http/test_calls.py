"""An HTTP request is a call like any other: counted, gated, shared fairly, cancelled when its caller leaves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from pairwire.server.app import Application
from pairwire.server.config import CallerConfig, ListenConfig, RequestLimits
from pairwire.server.errors import ConfigInvalid
from tests.server import serving
from tests.server.compat.http.running import Running, running
from tests.server.requests import work

WORK = json.dumps({"query": "how do I bake bread", "documents": ["mix flour and water"] * 4})


def counted(client: httpx.Client, rpc: str, code: str, model: str) -> float:
    name = f'pairwire_requests_total{{code="{code}",model="{model}",rpc="{rpc}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_calls_are_counted_by_route_model_and_code(http: httpx.Client) -> None:
    def seen() -> list[float]:
        return [
            counted(http, "/v1/rerank", "OK", "scorer"),
            counted(http, "/v1/rerank", "INVALID_ARGUMENT", ""),
            counted(http, "/v1/rerank", "NOT_FOUND", "unknown"),
        ]

    before = seen()
    assert http.post("/v1/rerank", json={"query": "a", "documents": ["b"]}).status_code == 200
    assert http.post("/v1/rerank", json={"query": 1}).status_code == 400
    assert http.post("/v1/rerank", json={"query": "a", "documents": ["b"], "model": "x"}).status_code == 404
    assert [now - then for now, then in zip(seen(), before, strict=True)] == [1, 1, 1]


def test_a_caller_that_hangs_up_is_cancelled(slow_package: Path) -> None:
    with running(slow_package) as server, server.client() as client:
        body = json.dumps({"query": "a", "documents": ["mix flour and water"] * 2000}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: server.application.engine.statistics().open_requests == 1)
        wait_for(lambda: server.application.engine.statistics().open_requests == 0)
        wait_for(lambda: counted(client, "/v1/rerank", "CANCELLED", "slow") == 1)
        wait_for(lambda: server.application.traffic.inside == 0)


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + serving.PATIENCE_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_deadline_that_cannot_be_met_is_504(slow_package: Path) -> None:
    with running(slow_package) as server, server.client() as client:
        body = {"query": "a", "documents": ["mix flour and water"] * 2000}
        answer = client.post("/v1/rerank", json=body, headers={"x-request-timeout": "50ms"})
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"


def test_a_queue_without_room_is_429_with_push_back(slow_package: Path) -> None:
    settings = serving.config(slow_package, http_port=0)
    settings = dataclasses.replace(settings, engine=dataclasses.replace(settings.engine, queue_tokens=8000))
    with running(slow_package, settings=settings) as server, server.client() as client, contextlib.ExitStack() as stack:
        statistics = lambda: server.application.engine.statistics()  # noqa: E731
        for call in range(2):
            body = json.dumps({"query": "a", "documents": list(work(120, call).documents)}).encode()
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: statistics().queued_tokens > 4000)
        answer = client.post("/rerank", json={"query": "b", "texts": list(work(120, 9).documents)})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error_type"] == "Overloaded"


def test_callers_are_told_apart_by_the_header_that_is_their_key(scorer_package: Path) -> None:
    settings = dataclasses.replace(
        serving.config(scorer_package, http_port=0), callers=CallerConfig(caller_key="x-tenant")
    )
    with running(scorer_package, settings=settings) as server, server.client() as client:
        answer = client.post("/v1/rerank", content=WORK, headers={"X-Tenant": "one"})
        assert answer.status_code == 200


async def test_a_server_that_loads_says_so(scorer_package: Path) -> None:
    application = Application(serving.config(scorer_package, http_port=0))
    await application.listen()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{application.http_port}") as client:
            assert (await client.get("/health")).status_code == 503
            refused = await client.post("/v1/rerank", content=WORK)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "loading" in refused.json()["message"]
            await application.load()
            assert (await client.get("/health")).status_code == 200
            assert (await client.post("/v1/rerank", content=WORK)).status_code == 200
    finally:
        await application.abort()


async def test_a_port_that_is_taken_is_named(scorer_package: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = dataclasses.replace(
            serving.config(scorer_package),
            listen=ListenConfig(port=0, metrics_port=-1, http_port=taken.getsockname()[1]),
        )
        application = Application(settings)
        with pytest.raises(ConfigInvalid, match=r"http_port: cannot listen on .* it is in use"):
            await application.listen()
        await application.abort()


@pytest.mark.slow
async def test_a_signal_under_load_loses_no_request_that_was_accepted(slow_package: Path) -> None:
    answered = 0
    enough = asyncio.Event()
    failures: list[str] = []

    async def ask(url: str) -> None:
        nonlocal answered
        async with httpx.AsyncClient(base_url=url, timeout=serving.PATIENCE_S) as client:
            while True:
                try:
                    answer = await client.post("/v1/rerank", content=WORK)
                except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError) as error:
                    if not isinstance(error, httpx.ConnectError):
                        failures.append(repr(error))
                    return
                if answer.status_code == 503:
                    return
                assert answer.status_code == 200, answer.text
                answered += 1
                if answered >= 50:
                    enough.set()

    async with serving.start(slow_package, "--http-port", "0") as server:
        clients = [asyncio.create_task(ask(f"http://127.0.0.1:{server.http_port}")) for _ in range(4)]
        await enough.wait()
        server.signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert await server.exit_code() == 0
    assert not failures


@pytest.mark.slow
def _connections_of(pid: int, port: int) -> int:
    found = psutil.Process(pid).net_connections("tcp")
    return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in found)


async def test_several_processes_share_the_port(scorer_package: Path) -> None:
    async with serving.start(scorer_package, "--http-port", "0", "--processes", "2") as server:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(64):  # the kernel gives each of them to one of the two
                address = f"http://127.0.0.1:{server.http_port}"
                client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
                assert (await client.get("/health")).status_code == 200
            held = [_connections_of(pid, server.http_port) for pid in server.children()]
        assert len(held) == 2
        assert all(held)
        assert sum(held) == 64
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


def test_a_large_request_and_its_answer_are_bounded_as_over_grpc(server: Running, scorer_package: Path) -> None:
    settings = serving.config(scorer_package, http_port=0, limits=RequestLimits(max_items=3, max_text_bytes=100))
    with running(scorer_package, settings=settings) as limited, limited.client() as client:
        many = client.post("/v1/rerank", json={"query": "a", "documents": ["b"] * 4}).json()["message"]
        assert many == "documents: 4 exceed --max-items 3; send several smaller requests"
        long = client.post("/rerank", json={"query": "a", "texts": ["b", "c" * 101]}).json()["error"]
        assert long == "texts[1]: 101 bytes exceed --max-text-bytes 100; shorten or split the text"
    with server.client() as client:
        lists = json.dumps({"input": [[]] * 200_000})
        answer = client.post("/v1/embeddings", content=lists)
        assert answer.status_code == 400
        assert "lists in a list" in answer.json()["error"]["message"]
