"""The real Envoy with deploy/mesh/envoy.yaml in front of two real servers, on their bad days."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests import processes
from tests.deploy.files import DEPLOY, documents
from tests.deploy.tools import tool
from tests.server import serving, toy_packages
from tests.server.requests import work
from tests.shared import Shared

pytestmark = pytest.mark.slow

_PATIENCE_S = 60.0
SMALL = scoring_pb2.RerankRequest(query="how do I bake bread", documents=["mix flour and water"] * 4)


@pytest.fixture(scope="module")
def slow_package(shared: Shared) -> Path:
    """Some ten milliseconds a batch."""
    return shared.directory("toy/behind-envoy", lambda target: toy_packages.write_cross_encoder(target, work=1500))


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    port: int
    admin: int

    def channel(self) -> grpc.aio.Channel:
        """A client without retries of its own."""
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    async def ask(self, path: str) -> Any:
        """JSON from the admin port."""
        return json.loads(await asyncio.to_thread(_fetch, f"http://127.0.0.1:{self.admin}{path}"))

    async def stat(self, name: str) -> int:
        """A figure of the cluster."""
        stats = (await self.ask(f"/stats?format=json&filter=^cluster.pairwire.{name}$"))["stats"]
        return int(stats[0]["value"]) if stats else 0

    async def until(self, name: str, condition: Callable[[int], bool]) -> None:
        """Returns once a figure of the cluster meets the condition."""
        value = await self.stat(name)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not condition(value):
                    await asyncio.sleep(0.02)
                    value = await self.stat(name)
        except TimeoutError:
            raise AssertionError(f"{name} stays at {value}") from None


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text


@contextlib.asynccontextmanager
async def envoy_before(*ports: int, directory: Path) -> AsyncIterator[Envoy]:
    """Envoy with the configuration that we ship, but for addresses and the pace of its health checks."""
    (config,) = documents(DEPLOY / "mesh" / "envoy.yaml")
    resources = config["static_resources"]
    _at(resources["listeners"][0], 0)
    _at(config["admin"], 0)
    cluster = resources["clusters"][0]
    del cluster["cluster_type"]
    cluster["type"] = "STATIC"
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    cluster["health_checks"][0] |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
    file, admin = directory / "envoy.yaml", directory / "admin"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [tool("envoy"), "-c", str(file), "--disable-hot-restart", "--concurrency", "1"]
    command += ["--admin-address-path", str(admin), "--log-level", "warning"]
    async with processes.started_here(command):
        await serving.eventually(lambda: admin.exists() and ":" in admin.read_text(encoding="utf-8"))
        found = Envoy(0, int(admin.read_text(encoding="utf-8").rpartition(":")[2]))
        listeners = await found.ask("/listeners?format=json")
        port = listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"]
        envoy = Envoy(port, found.admin)
        await envoy.until("membership_healthy", lambda healthy: healthy == len(ports))
        yield envoy


def _at(listener: dict[str, Any], port: int) -> None:
    listener["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": port}


@contextlib.asynccontextmanager
async def tier(
    package: Path, directory: Path, *options: str
) -> AsyncIterator[tuple[Envoy, serving.Process, serving.Process]]:
    """Two servers behind Envoy."""
    tool("envoy")
    async with (
        serving.start(package, *options) as first,
        serving.start(package, *options) as second,
        envoy_before(first.port, second.port, directory=directory) as envoy,
    ):
        yield envoy, first, second


async def answered(server: serving.Process) -> collections.Counter[str]:
    """Calls of Rerank by their code, as the server counts them."""
    text = await asyncio.to_thread(_fetch, f"http://127.0.0.1:{server.metrics_port}/metrics")
    found: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        if line.startswith("pairwire_requests_total{") and 'rpc="Rerank"' in line:
            found[line.split('code="')[1].split('"')[0]] += int(float(line.split()[-1]))
    return found


class Clients:
    """Callers that send their next request when the last has been answered, until they are told to stop."""

    def __init__(self, envoy: Envoy, number: int) -> None:
        self.codes: collections.Counter[str] = collections.Counter()
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._ask(envoy)) for _ in range(number)]

    async def _ask(self, envoy: Envoy) -> None:
        async with envoy.channel() as channel:
            scoring = ScoringServiceStub(channel)
            while not self._stopping.is_set():
                call = scoring.Rerank(SMALL, timeout=_PATIENCE_S)
                self.codes[(await call.code()).name] += 1

    async def more(self, calls: int) -> None:
        """Waits for this many more answers."""
        enough = self.codes.total() + calls
        await serving.eventually(lambda: self.codes.total() >= enough)

    async def stop(self) -> None:
        """Waits for the last answers."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)


async def test_an_overload_is_neither_multiplied_nor_taken_for_an_illness(slow_package: Path, tmp_path: Path) -> None:
    async with tier(slow_package, tmp_path, "--workers", "1", "--queue-s", "0.2") as (envoy, first, second):
        async with envoy.channel() as channel:
            scoring = ScoringServiceStub(channel)
            calls = [scoring.Rerank(work(16, number), timeout=_PATIENCE_S) for number in range(80)]
            seen = collections.Counter([(await call.code()).name for call in calls])
        counted = await answered(first) + await answered(second)
        assert seen["RESOURCE_EXHAUSTED"] > 10, seen
        assert counted == seen
        assert await envoy.stat("upstream_rq_retry") == 0
        assert await envoy.stat("outlier_detection.ejections_enforced_total") == 0
        assert await envoy.stat("membership_healthy") == 2


async def test_a_client_in_a_hurry_ejects_nobody(slow_package: Path, tmp_path: Path) -> None:
    async with tier(slow_package, tmp_path) as (envoy, first, second), envoy.channel() as channel:
        scoring = ScoringServiceStub(channel)
        assert (await scoring.Rerank(SMALL)).results
        for number in range(30):
            code = await scoring.Rerank(work(512, number), timeout=0.5).code()
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        refused = [(await answered(server))["DEADLINE_EXCEEDED"] for server in (first, second)]
        assert min(refused) > 5
        assert await envoy.stat("upstream_rq_retry") == 0
        assert await envoy.stat("outlier_detection.ejections_enforced_total") == 0
        assert await envoy.stat("membership_healthy") == 2


@pytest.mark.parametrize("delay_s", ["0", "1"])
async def test_clients_do_not_notice_a_drain(delay_s: str, slow_package: Path, tmp_path: Path) -> None:
    async with tier(slow_package, tmp_path, "--drain-delay-s", delay_s) as (envoy, first, second):
        clients = Clients(envoy, 4)
        await clients.more(20)
        first.signal(signal.SIGTERM)
        assert await first.exit_code() == 0
        await envoy.until("membership_healthy", lambda healthy: healthy == 1)
        await clients.more(20)
        await clients.stop()
        assert set(clients.codes) == {"OK"}
        assert (await answered(second))["OK"] >= 20


async def test_a_server_that_is_killed_costs_what_was_inside_and_no_more(slow_package: Path, tmp_path: Path) -> None:
    async with tier(slow_package, tmp_path) as (envoy, first, _):
        clients = Clients(envoy, 4)
        await clients.more(20)
        first.signal(signal.SIGKILL)
        await envoy.until("membership_healthy", lambda healthy: healthy == 1)
        lost = clients.codes.total() - clients.codes["OK"]
        assert lost <= 4, clients.codes
        assert set(clients.codes) <= {"OK", "UNAVAILABLE"}
        await clients.more(20)
        await clients.stop()
        assert clients.codes.total() - clients.codes["OK"] == lost


async def test_a_server_that_hangs_is_left_alone_until_it_answers_again(slow_package: Path, tmp_path: Path) -> None:
    async with tier(slow_package, tmp_path) as (envoy, first, second):
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            await envoy.until("membership_healthy", lambda healthy: healthy == 1)
            before = (await answered(second))["OK"]
            clients = Clients(envoy, 4)
            await clients.more(20)
            await clients.stop()
            assert set(clients.codes) == {"OK"}
            assert (await answered(second))["OK"] - before == clients.codes["OK"]
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        await envoy.until("membership_healthy", lambda healthy: healthy == 2)
