"""``pairwire serve``: what it prints, what it refuses, and how it exits."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import grpc
import pytest

from pairwire.cli.arguments import ADDRESS_VARIABLE
from pairwire.cli.main import main
from pairwire.server import cli
from pairwire.server.config import ServerConfig
from pairwire.server.engine import Engine
from pairwire.server.options import options_of
from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests import processes
from tests.server import serving
from tests.server.engine import toys


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings."""
    monkeypatch.delenv("PAIRWIRE_PORT", raising=False)
    monkeypatch.chdir(tmp_path)


def run(*arguments: Path | str) -> int:
    return main(["serve", *map(str, arguments)])


def test_the_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    words = " ".join(capsys.readouterr().out.split())
    for option in options_of(ServerConfig):
        assert option.name == "models" or f"{option.flag} " in words
        assert " ".join(option.help.split()[:4]) in words


def test_what_is_in_force_can_be_printed_and_fed_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRWIRE_MAX_ITEMS", "7")
    assert run("some/model", "--port", "0", "--print-config") == 0
    printed = capsys.readouterr().out
    content = tomllib.loads(printed)
    assert (content["models"], content["port"], content["max_items"]) == (["some/model"], 0, 7)
    assert "max_items = 7  # environment PAIRWIRE_MAX_ITEMS" in printed
    monkeypatch.delenv("PAIRWIRE_MAX_ITEMS")
    Path("printed.toml").write_text(printed)
    assert run("--config", "printed.toml", "--print-config") == 0
    assert tomllib.loads(capsys.readouterr().out) == content


def test_the_clients_own_variable_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "localhost:1")
    assert run("some/model", "--print-config") == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "pairwire: no model to serve; give at least one package directory"),
        (("nowhere", "--port", "0", "--metrics-port", "-1"), "pairwire: nowhere: no manifest.json there"),
        (("m", "--port", "many"), "pairwire: --port: expected a whole number, got 'many'"),
        (
            ("m", "--port", "70000"),
            "pairwire: port: 70000 cannot work; give a number from 0 to 65535 (set by flag --port)",
        ),
        (("m", "--workers", "-1"), "pairwire: workers: -1 cannot work"),
        (("m", "--log-level", "loud"), "pairwire: --log-level: 'loud' is none of debug, info, warning, error"),
        (("m", "--config", "none.toml"), "pairwire: none.toml: cannot be read"),
        (("m", "--tls-cert", "cert.pem"), "pairwire: tls_key: needed too"),
    ],
    ids=str,
)
def test_what_cannot_start_says_why_in_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--log-level", "error") == 2 if "--log-level" not in arguments else run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(sentence)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.slow
def test_a_process_that_cannot_start_leaves_one_sentence_and_no_traceback(scorer_package: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = (*serving.COMMAND, str(scorer_package), "--port", port, "--metrics-port", "-1")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"pairwire: port: cannot listen on 127.0.0.1:{port}: it is in use")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_damaged_package_ends_a_process_with_a_sentence(scorer_package: Path, tmp_path: Path) -> None:
    for file in scorer_package.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cpu-fp32.onnx").write_bytes(b"no graph")
    command = (*serving.COMMAND, str(tmp_path), "--port", "0", "--metrics-port", "0", "--log-level", "error")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sha256 is" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_process_prints_its_models_and_ports_on_stdout_and_logs_json_on_stderr(scorer_package: Path) -> None:
    command = (*serving.COMMAND, str(scorer_package), "--port", "0", "--metrics-port", "-1", "--workers", "1")
    with processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        header, model, serving_line = (process.stdout.readline() for _ in range(3))
        process.send_signal(signal.SIGINT)
        rest, log = process.communicate(timeout=serving.PATIENCE_S)
    assert header.split() == ["model", "kind", "variant", "provider", "threads", "bucket", "lengths"]
    assert model.split()[:7] == ["scorer", "cross-encoder", "cpu-fp32", "CPUExecutionProvider", "1", "x", "1"]
    assert serving_line.startswith("pairwire: serving on 127.0.0.1:")
    assert serving_line.endswith(", metrics off\n")
    assert rest == ""
    assert process.returncode == 0
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert messages[-1] == "server is stopped"
    assert "server is draining" in messages


@pytest.mark.slow
def test_a_signal_while_the_models_load_ends_the_process_at_once(scorer_package: Path) -> None:
    command = (*serving.COMMAND, str(scorer_package), "--port", "0", "--metrics-port", "-1", "--warmup-s", "3600")
    with processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "listening on" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=serving.PATIENCE_S)
    assert process.returncode == 0
    assert out == ""


DYING_SERVER = """
import sys
from pairwire.server.app import Application
from pairwire.server.runtime.fake import FakeRuntime
from tests.server import serving, test_cli
from tests.server.engine import toys

def die(batch):
    raise SystemExit("something that nobody foresaw")

Application.__init__.__kwdefaults__["open_engine"] = serving.opener(lambda: [toys.toy_model(FakeRuntime(on_run=die))])
sys.exit(test_cli.run("never-read", "--port", "0", "--metrics-port", "-1"))
"""


@pytest.mark.slow
async def test_a_dead_engine_ends_the_process_with_an_exit_code_that_tells() -> None:
    root = Path(__file__).parents[2]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    async with processes.started_here((sys.executable, "-c", DYING_SERVER), cwd=root, **pipes) as process:
        lines = [await process.stdout.readline() for _ in range(3)]
        address = re.findall(rb"serving on (\S+),", lines[2])[0].decode()
        async with grpc.aio.insecure_channel(address) as channel:
            call = ScoringServiceStub(channel).Rerank(scoring_pb2.RerankRequest(query="q", documents=["d"]))
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert "restart the server" in await call.details()
        log = (await process.stderr.read()).decode()
        assert await process.wait() == 1
    assert "a worker died" in log


async def test_the_table_has_a_line_for_each_model() -> None:
    async with Engine([toys.toy_model(), toys.toy_model(manifest=toys.bi_encoder_manifest())]) as engine:
        header, *lines = cli.start_up_table(engine.models.values()).splitlines()
    assert header.startswith("model         kind")
    assert [line.split()[:4] for line in lines] == [
        ["toy", "cross-encoder", "FakeExecutionProvider", f"{engine.statistics().workers}"],
        ["toy-embedder", "bi-encoder", "FakeExecutionProvider", f"{engine.statistics().workers}"],
    ]
