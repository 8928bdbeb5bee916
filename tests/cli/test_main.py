"""The dispatcher: what it costs to ask for help, and how every ending becomes an exit code."""

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pairwire.cli import exits
from pairwire.cli.main import COMMANDS
from pairwire.server.errors import ConfigInvalid, EngineFault, InvalidInput, PackageInvalid
from tests import processes
from tests.cli.conftest import Run
from tests.client.fake_server import FakeServer


def test_help_names_every_command_and_the_exit_codes(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for name in (
        "export",
        "serve",
        "score",
        "rerank",
        "classify",
        "embed",
        "embed-sparse",
        "models",
        "inspect",
        "tune",
        "profile",
        "doctor",
        "api-key",
    ):
        assert re.search(rf"^    {name}\s", done.out, re.MULTILINE), name
    assert exits.EXIT_CODES.strip() in done.out
    assert len(COMMANDS) == 14


@pytest.mark.parametrize(
    "command",
    ["score", "rerank", "classify", "embed", "embed-sparse", "models", "inspect", "tune", "profile", "doctor"],
)
def test_help_of_a_command_has_the_exit_codes(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert exits.EXIT_CODES.strip() in done.out


def test_version_is_told(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert done.out.startswith("pairwire ")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["export", "--help"], ["score", "--help"]])
def test_help_needs_no_heavy_library(arguments: list[str]) -> None:
    blocked = {"onnxruntime", "torch", "transformers", "sentence_transformers", "optimum", "onnx", "tokenizers", "grpc"}
    script = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # an import of it fails
from pairwire.cli.main import main
try:
    main({arguments!r})
finally:
    assert "numpy" not in sys.modules, "numpy was loaded"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def ending(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (exits.BadInput("line 3: no"), 2, "pairwire: line 3: no\n"),
        (exits.CommandError("the server could not start"), 1, "pairwire: the server could not start\n"),
        (InvalidInput("pairs[0]", "too long"), 2, "pairwire: pairs[0]: too long\n"),
        (ConfigInvalid("port: wrong"), 2, "pairwire: port: wrong\n"),
        (PackageInvalid("no package"), 1, "pairwire: no package\n"),
        (EngineFault("the runtime failed"), 1, "pairwire: the runtime failed\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"),
            1,
            "pairwire: torch is not installed; install it with: pip install 'pairwire[export]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"),
            1,
            "pairwire: onnxruntime is not installed; install it with: pip install 'pairwire[cpu]'\n",
        ),
    ],
)
def test_every_known_ending_has_its_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    assert exits.run(ending(error)) == code
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            ZeroDivisionError("a bug"),
            1,
            "ZeroDivisionError: a bug; this was not foreseen: --debug shows where it happened",
        ),
        (RuntimeError("Broken:\nsize\nmore"), 1, "Broken: size more (RuntimeError); this was not foreseen: --debug"),
        (ModuleNotFoundError("no", name="our_typo"), 1, "no (ModuleNotFoundError); this was not foreseen"),
        (FileNotFoundError(2, "No such file or directory", "x.pem"), 2, "x.pem: No such file or directory\n"),
        (OSError(28, "No space left on device", "out.npy"), 1, "out.npy: No space left on device\n"),
        (MemoryError(), 1, "the memory has run out\n"),
        (RecursionError("maximum recursion depth exceeded"), 1, "nested too deeply (RecursionError); this was not"),
    ],
)
def test_what_nobody_foresaw_is_a_sentence_too(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, sentence: str
) -> None:
    assert exits.run(ending(error), argparse.Namespace(command="score")) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"pairwire: score: {sentence}")
    assert len(printed.splitlines()) == 1


def test_debug_shows_the_traceback_before_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.run(ending(exits.BadInput("line 3: no")), argparse.Namespace(debug=True)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "pairwire: line 3: no"


@pytest.mark.parametrize("arguments", [["--debug", "inspect"], ["inspect", "--debug"]])
def test_debug_may_stand_before_and_after_the_command(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    assert "Traceback" in run(*arguments, str(tmp_path)).err
    assert "Traceback" not in run("inspect", str(tmp_path)).err


def test_the_variable_of_the_clients_does_not_stop_a_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRWIRE_ADDRESS", "somewhere:1")
    done = run("serve", "--print-config")
    assert (done.code, done.err) == (0, "")


@pytest.mark.slow
def test_a_reader_that_goes_ends_the_command_quietly(server: FakeServer) -> None:
    command = [*processes.MAIN, "score", "--address", server.address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with processes.started(command, **pipes) as process:
        process.stdin.write(b"a\tb\n" * 20_000)
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == exits.BROKEN_PIPE


@pytest.mark.slow
def test_interrupting_is_quiet(server: FakeServer) -> None:
    server.script.gate.clear()
    command = [*processes.INTERRUPTIBLE_MAIN, "score", "a", "b", "--address", server.address]
    with processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        server.script.wait_for_active(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (exits.INTERRUPTED, b"", b"")
