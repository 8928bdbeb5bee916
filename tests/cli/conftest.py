"""The command line in this process, with its own stdin, stdout and stderr, against a fake server."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pairwire.cli.main import main
from tests.client.fake_server import FakeServer


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Done]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    found = FakeServer()
    yield found
    found.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command: ``run("score", "a", "b", stdin=...)``; what argparse exits with is its code too."""

    def run(*arguments: str, stdin: str | bytes = "") -> Done:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def remote(run: Run, server: FakeServer) -> Run:
    """As ``run``, with the fake server's address."""

    def remote(command: str, *arguments: str, stdin: str | bytes = "") -> Done:
        return run(command, "--address", server.address, *arguments, stdin=stdin)

    return remote
