"""Two real servers under a supervisor: killed, hung, drained and damaged while clients ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.client import AsyncClient
from pairwire.server.cpus import usable_cpus
from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests import processes
from tests.server import serving
from tests.server.requests import work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(usable_cpus() < 2, reason="two processes need two CPUs"),
]

SMALL = scoring_pb2.RerankRequest(query="how do I bake bread", documents=["mix flour and water"] * 4)
LARGE = work(1024)
"""Seconds of work."""

CLIENTS = 8


def requests_of(number: int) -> str:
    """The series that tells how many RPCs a process has answered."""
    return f'pairwire_process_requests_total{{process="{number}"}}'


def command(*arguments: Path | str) -> list[str]:
    return [*serving.COMMAND, *map(str, arguments), "--processes", "2", "--warmup-s", "0.01", "--log-level", "error"]


@contextlib.asynccontextmanager
async def reach_both(server: serving.Process) -> AsyncIterator[dict[int, ScoringServiceStub]]:
    """A client of each process. Which one a connection belongs to shows in who counts its request."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[int, ScoringServiceStub] = {}
        while len(found) < 2:
            before = await server.metric(requests_of(0))
            scoring = ScoringServiceStub(await stack.enter_async_context(server.channel()))
            await scoring.Rerank(SMALL)
            counted = await server.metric(requests_of(0)) - before
            found.setdefault(0 if counted else 1, scoring)
        yield found


async def test_both_serve_on_one_port_and_their_metrics_add_up(scorer_package: Path) -> None:
    async with serving.start(scorer_package, "--processes", "2") as server:
        async with reach_both(server) as scoring:
            for number, times in ((0, 3), (1, 5)):
                for _ in range(times):
                    assert len((await scoring[number].Rerank(SMALL)).results) == 4
            each = [await server.metric(requests_of(number)) for number in (0, 1)]
        assert each[0] >= 4
        assert each[1] >= 6
        series = 'pairwire_requests_total{code="OK",model="scorer",rpc="Rerank"}'
        assert await server.metric(series) == sum(each)
        assert await server.metric('pairwire_rows_total{model="scorer"}') == 4 * sum(each)
        assert await server.metric("pairwire_queue_limit_tokens") == 2 * 1_048_576
        assert await server.metric('pairwire_model_healthy{model="scorer"}') == 1
        assert await server.metric("pairwire_processes_ready") == await server.metric("pairwire_processes") == 2
        memory = sum(psutil.Process(pid).memory_info().rss for pid in (server.process.pid, *server.children()))
        assert await server.metric("process_resident_memory_bytes") == pytest.approx(memory, rel=0.2)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


async def test_each_has_cpus_of_its_own(scorer_package: Path) -> None:
    async with serving.start(scorer_package, "--processes", "2") as server:
        first, second = (os.sched_getaffinity(pid) for pid in server.children())
    assert first.isdisjoint(second)
    assert first | second == os.sched_getaffinity(0)


async def ask(server: serving.Process, at: int, stop: asyncio.Event) -> int:
    """A client that tries again, as every Pairwire client does; returns how many requests it has sent."""
    sent = 0
    while not stop.is_set():
        async with AsyncClient(f"127.0.0.1:{server.port}") as client:
            for _ in range(20):  # each new connection may go to another process
                documents = 1 + (at + sent) % 7
                answer = await client.rerank("how do I bake bread", ["mix flour and water"] * documents)
                assert len(answer) == documents  # each answer is that of its own request
                sent += 1
    return sent


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_process_that_ends_under_load_costs_no_request_and_is_replaced(
    number: signal.Signals, slow_package: Path
) -> None:
    stop = asyncio.Event()
    async with serving.start(slow_package, "--processes", "2") as server:
        clients = [asyncio.create_task(ask(server, at, stop)) for at in range(CLIENTS)]
        await server.wait_for_metric(requests_of(0), lambda value: value > 20)
        series = 'pairwire_requests_total{code="OK",model="slow",rpc="Rerank"}'
        before = await server.metric(series)
        killed = server.children()[0]
        os.kill(killed, number)
        await server.wait_for_metric("pairwire_process_restarts_total", lambda value: value == 1)
        assert await server.metric(series) >= before  # what the dead one had counted is still there
        await server.wait_for_metric("pairwire_processes_ready", lambda value: value == 2)
        assert killed not in server.children()
        stop.set()
        assert all(sent > 0 for sent in await asyncio.gather(*clients))
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


async def test_one_signal_drains_both(slow_package: Path) -> None:
    async with serving.start(slow_package, "--processes", "2") as server, reach_both(server) as scoring:
        calls = [asyncio.ensure_future(each.Rerank(LARGE)) for each in scoring.values()]
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 2)
        server.signal(signal.SIGTERM)
        assert [len(answer.results) for answer in await asyncio.gather(*calls)] == [1024] * 2
        assert await server.exit_code() == 0


async def test_a_signal_that_reaches_everybody_at_once_drains_as_well(slow_package: Path) -> None:
    """As systemd sends it."""
    async with serving.start(slow_package, "--processes", "2") as server, reach_both(server) as scoring:
        calls = [asyncio.ensure_future(each.Rerank(LARGE)) for each in scoring.values()]
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 2)
        for pid in (*server.children(), server.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert [len(answer.results) for answer in await asyncio.gather(*calls)] == [1024] * 2
        assert await server.exit_code() == 0


async def test_the_worst_exit_code_counts(slow_package: Path) -> None:
    options = ("--processes", "2", "--drain-timeout-s", "0.1")
    async with serving.start(slow_package, *options) as server, reach_both(server) as scoring:
        calls = [
            asyncio.ensure_future(scoring[1].Rerank(work(1024, call)).code()) for call in range(8)
        ]  # far more than the limit
        await server.wait_for_metric("pairwire_running_rows", lambda value: value > 0)
        server.signal(signal.SIGTERM)
        assert grpc.StatusCode.UNAVAILABLE in await asyncio.gather(*calls)
        assert await server.exit_code() == 1


async def test_a_second_signal_ends_all_at_once(slow_package: Path) -> None:
    options = ("--processes", "2", "--drain-delay-s", "600")
    async with serving.start(slow_package, *options) as server, server.channel() as channel:
        children = [psutil.Process(pid) for pid in server.children()]
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 1
        await gone(children)


async def gone(children: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=serving.PATIENCE_S)
    assert not alive


async def test_without_their_supervisor_they_finish_their_work_and_leave(slow_package: Path) -> None:
    async with serving.start(slow_package, "--processes", "2") as server, reach_both(server) as scoring:
        children = [psutil.Process(pid) for pid in server.children()]
        calls = [asyncio.ensure_future(each.Rerank(LARGE)) for each in scoring.values()]
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 2)
        server.signal(signal.SIGKILL)
        assert [len(answer.results) for answer in await asyncio.gather(*calls)] == [1024] * 2
        await gone(children)


async def test_one_that_hangs_is_killed_and_replaced(scorer_package: Path) -> None:
    async with serving.start(scorer_package, "--processes", "2", "--hang-timeout-s", "2") as server:
        hanging = server.children()[1]
        os.kill(hanging, signal.SIGSTOP)
        await server.wait_for_metric("pairwire_process_restarts_total", lambda value: value == 1)
        await server.wait_for_metric("pairwire_processes_ready", lambda value: value == 2)
        assert hanging not in server.children()


async def test_one_that_cannot_start_again_leaves_the_other_serving(scorer_package: Path, tmp_path: Path) -> None:
    package = shutil.copytree(scorer_package, tmp_path / "package")
    async with serving.start(package, "--processes", "2") as server, reach_both(server) as scoring:
        (package / "manifest.json").rename(tmp_path / "hidden")
        os.kill(server.children()[0], signal.SIGKILL)
        await server.wait_for_metric("pairwire_process_restarts_total", lambda value: value >= 2)
        assert await server.metric("pairwire_processes_ready") == 1
        async with AsyncClient(f"127.0.0.1:{server.port}") as client:
            for _ in range(10):
                assert len(await client.rerank("how do I bake bread", ["mix flour"])) == 1
        assert len((await scoring[1].Rerank(SMALL)).results) == 4
        (tmp_path / "hidden").rename(package / "manifest.json")
        await server.wait_for_metric("pairwire_processes_ready", lambda value: value == 2)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


def test_what_cannot_start_says_so_once_as_one_process_does(tmp_path: Path) -> None:
    arguments = command(tmp_path, "--port", "0", "--metrics-port", "0")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"pairwire: {tmp_path}: no manifest.json there")
    assert done.stderr.count("\n") == 1


def test_what_only_shows_when_it_listens_ends_the_start_too(scorer_package: Path) -> None:
    arguments = command(scorer_package, "--port", "0", "--metrics-port", "-1", "--tls-cert", __file__)
    done = subprocess.run([*arguments, "--tls-key", __file__], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no matching PEM certificate and key" in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_signal_while_they_load_ends_all_at_once(scorer_package: Path) -> None:
    arguments = [*serving.COMMAND, str(scorer_package), "--port", "0", "--metrics-port", "-1", "--processes", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    async with processes.started_here([*arguments, "--warmup-s", "3600"], **pipes) as process:
        for number in (b"0", b"1"):
            assert b"process %s starts" % number in await process.stderr.readline()
        children = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        assert (out, process.returncode) == (b"", 0)
        await gone(children)


async def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(scorer_package: Path) -> None:
    async with serving.start(scorer_package, "--processes", "2") as server:
        for processes in ("1", "2"):
            arguments = [*serving.COMMAND, str(scorer_package), "--port", str(server.port), "--processes", processes]
            done = await asyncio.to_thread(subprocess.run, [*arguments, "--metrics-port", "-1"], capture_output=True)
            assert done.returncode == 2
            assert b"pairwire: port: cannot listen on 127.0.0.1:" in done.stderr
            assert b"it is in use" in done.stderr


@pytest.mark.parametrize(
    ("processes", "sentence"),
    [
        ("0", "pairwire: processes: 0 cannot work; give a number from 1 to 1024 (set by flag --processes)"),
        ("1000", "pairwire: processes: 1000 are more than the "),
    ],
)
def test_numbers_that_cannot_work_are_refused(processes: str, sentence: str) -> None:
    arguments = [*serving.COMMAND, "never-read", "--port", "0", "--processes", processes]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


async def test_every_line_of_a_process_bears_its_number_and_it_shows_its_stacks_when_asked(
    scorer_package: Path,
) -> None:
    arguments = [*serving.COMMAND, str(scorer_package), "--port", "0", "--metrics-port", "-1", "--processes", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
    }  # as for most people
    async with processes.started_here([*arguments, "--warmup-s", "0.01"], **pipes, env=environment) as process:
        lines = [await process.stdout.readline() for _ in range(3)]
        assert lines[0].split()[0] == b"model"
        assert lines[1].split()[0] == b"scorer"
        assert lines[2].startswith(b"pairwire: serving on 127.0.0.1:")
        assert lines[2].endswith(b", metrics off\n")
        os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGUSR1)
        log = b""
        while b"Current thread" not in log:
            log += await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest, more = await process.communicate()
    assert (rest, process.returncode) == (b"", 0)
    for number in (0, 1):
        stopped = f'"message": "server is stopped", "process_number": {number}}}'
        assert stopped.encode() in more


def test_the_supervisor_carries_nothing_heavy() -> None:
    script = """
import sys
import pairwire.cli.main, pairwire.server.processes.supervisor
print(*sorted({"numpy", "grpc", "onnxruntime", "tokenizers", "google.protobuf", "uvloop"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
