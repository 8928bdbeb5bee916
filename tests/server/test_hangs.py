"""Runs that never end, in a real server: the input pays, or the process, but nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.chaos.faults import Fault
from pairwire.v1 import model_pb2, scoring_pb2
from pairwire.v1.model_pb2_grpc import ModelServiceStub
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server import serving, toy_packages

pytestmark = pytest.mark.slow

EXIT_LOST, EXIT_STARTUP, EXIT_HUNG = 1, 2, 3
NEVER = ("--hang-timeout-s", "3600")


def score(*texts: str) -> scoring_pb2.ScoreRequest:
    pairs = [scoring_pb2.TextPair(first="the", second=text) for text in texts]
    return scoring_pb2.ScoreRequest(text_pairs=scoring_pb2.TextPairs(pairs=pairs))


@contextlib.asynccontextmanager
async def started(
    package: Path, *options: str, log: Path | None = None
) -> AsyncIterator[tuple[serving.Process, ScoringServiceStub, grpc.aio.Channel]]:
    """A server of one worker."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("wb")) if log else None
        async with serving.start(package, "--workers", "1", *options, log=file) as server, server.channel() as channel:
            yield server, ScoringServiceStub(channel), channel


async def test_an_input_on_which_the_model_hangs_is_refused_and_the_server_lives(
    faulty_package: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with started(faulty_package, "--hang-timeout-s", "0.5", "--log-format", "text", log=log) as (
        server,
        scoring,
        channel,
    ):
        expected = (await scoring.Score(score("a", "b"))).scores
        hanging = scoring.Score(score("a", Fault.HANG.value))
        waiting = asyncio.ensure_future(hanging.code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value > 0)
        others = [scoring.Score(score("a", "b")) for _ in range(5)]
        assert [(await other).scores for other in others] == [expected] * 5
        assert await waiting is grpc.StatusCode.INVALID_ARGUMENT
        assert (await hanging.details()).startswith("text_pairs.pairs[1]: the model came to no end on it")
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0
    assert "a run of model 'faulty' on 2 x 8 has taken more than 0.5 s; it is asked to end" in log.read_text()


async def test_a_run_that_cannot_be_ended_ends_the_process_and_who_waits_is_told_to_ask_another(
    faulty_package: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with started(faulty_package, "--hang-timeout-s", "0.5", log=log) as (server, scoring, channel):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        hanging = asyncio.ensure_future(scoring.Score(score(Fault.STUBBORN.value)).code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value == 1)
        same = asyncio.ensure_future(scoring.Score(score(Fault.STUBBORN.value)).code())
        waiting = asyncio.ensure_future(scoring.Score(score("a")).code())
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 3)
        assert await waiting is grpc.StatusCode.UNAVAILABLE
        # What makes one server hang must not be tried on the next.
        assert await hanging is await same is grpc.StatusCode.INTERNAL
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await server.exit_code() == EXIT_HUNG
    text = log.read_text()
    assert "does not end, though it was asked to" in text
    assert "the process ends with exit code 3" in text
    assert "onnx_cpu.py" in text  # the stacks


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STUBBORN])
async def test_a_drain_ends_in_time_whatever_hangs(fault: Fault, faulty_package: Path) -> None:
    async with started(faulty_package, *NEVER, "--drain-timeout-s", "0.2") as (server, scoring, _):
        hanging = asyncio.ensure_future(scoring.Score(score(fault.value)).code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value == 1)
        waiting = asyncio.ensure_future(scoring.Score(score("a")).code())
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 2)
        server.signal(signal.SIGTERM)
        assert await hanging is await waiting is grpc.StatusCode.UNAVAILABLE
        assert await server.exit_code() == EXIT_LOST


async def test_a_hanging_run_that_nobody_waits_for_holds_no_drain_up(faulty_package: Path) -> None:
    async with started(faulty_package, *NEVER) as (server, scoring, _):
        call = scoring.Score(score(Fault.STUBBORN.value))
        waiting = asyncio.ensure_future(call.code())
        await server.wait_for_metric("pairwire_running_rows", lambda value: value == 1)
        call.cancel()
        assert await waiting is grpc.StatusCode.CANCELLED
        await server.wait_for_metric("pairwire_open_requests", lambda value: value == 0)
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (Fault.HANG, EXIT_STARTUP, "while the model is loaded took more than 0.5 s"),
        (Fault.STUBBORN, EXIT_HUNG, "does not end, though it was asked to"),
    ],
)
def test_a_model_that_hangs_while_it_is_measured_ends_the_start(
    fault: Fault, code: int, sentence: str, tmp_path: Path
) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "package", faults={fault: "[PAD]"})
    arguments = [*serving.COMMAND, package, "--port", "0", "--metrics-port", "-1", "--hang-timeout-s", "0.5"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr


async def test_an_event_loop_that_hangs_ends_the_process(tmp_path: Path, scorer_package: Path) -> None:
    """As one does that writes to a log that nobody reads."""
    script = f"""
import sys, threading
from pairwire.server.rpc.model import ModelServicer
async def hang(*args): threading.Event().wait()
ModelServicer.list_models = hang
from pairwire.cli.main import main
sys.argv[1:] = ["serve", {str(scorer_package)!r}, "--port", "0", "--metrics-port", "-1", "--hang-timeout-s", "1"]
sys.exit(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(serving.COMMAND[0], "-c", script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = 0
    while not port:
        line = (await process.stdout.readline()).decode()
        assert line
        port = int(line.split("127.0.0.1:")[1].split(",")[0]) if "serving on" in line else 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest()).code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        )
    _, errors = await process.communicate()
    assert process.returncode == EXIT_HUNG
    assert b"the event loop gives no sign of life" in errors
