"""Nobody is told that Pairwire runs: what a server, a client, an engine and an exporter write and look up.

ONNX Runtime makes its files soon after it is imported, before it looks up a name: they show telemetry early.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.watching import Watched, can_trace, elsewhere, watch

ROOT = Path(__file__).parent.parent

_SERVE_AND_ASK = """
import sys
from pathlib import Path
from pairwire.cli.server_process import ServerProcess
from pairwire.client import Client
with ServerProcess.serve([Path(sys.argv[1])], "--metrics-port=0", "--warmup-s=0.01", *sys.argv[2:]) as server:
    with Client(server.address) as client:
        client.wait_until_ready()
        print(client.score([("a", "b")]).scores)
"""
_IN_PROCESS = """
import asyncio, sys
from pairwire.server.engine import Engine, EngineConfig
async def main():
    async with await Engine.open(sys.argv[1], config=EngineConfig(warmup_s=0.01)) as engine:
        print((await engine.score([("a", "b")])).scores)
asyncio.run(main())
"""
_UNTIL_WRITTEN = """
import os, pathlib, time, pairwire.server.runtime.ort
print(os.environ["ORT_DISABLE_TELEMETRY"])
patience = time.monotonic() + 60  # a thread of ONNX Runtime writes, in its own time
while not list(pathlib.Path(os.environ["XDG_CACHE_HOME"]).rglob("*onnxruntime*")) and time.monotonic() < patience:
    time.sleep(0.01)
"""
_IMPORT_OF = {"onnxruntime": "server/runtime/ort.py"}
"""Module -> the only file of ours that may import it."""


@pytest.fixture(scope="session")
def programs(
    cross_encoder_package: Path, cross_encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, list[str]]:
    package, output = str(cross_encoder_package), str(tmp_path_factory.mktemp("exported") / "model")
    export = ["export", str(cross_encoder_checkpoint), "-o", output, "--no-tune", "--no-parity"]
    return {
        "server and client": ["-c", _SERVE_AND_ASK, package],
        "processes": ["-c", _SERVE_AND_ASK, package, "--processes=2"],
        "engine": ["-c", _IN_PROCESS, package],
        "exporter": ["-m", "pairwire.cli.main", *export],
    }


_SEEN: dict[str, Watched] = {}
"""Each program is run once."""


@pytest.fixture(params=["server and client", "processes", "engine", "exporter"])
def watched(request: pytest.FixtureRequest, programs: Mapping[str, list[str]], tmp_path: Path) -> Watched:
    name = request.param
    if name not in _SEEN:
        _SEEN[name] = watch(tmp_path, *programs[name])
    assert _SEEN[name].code == 0, _SEEN[name].output
    return _SEEN[name]


@pytest.mark.slow
def test_nothing_is_written_but_our_own_costs(watched: Watched) -> None:
    foreign = [file for file in watched.files if not file.startswith("cache/pairwire")]
    assert foreign == []


@pytest.mark.slow
@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")
def test_no_name_is_looked_up_and_no_other_machine_is_called(watched: Watched) -> None:
    assert watched.peers is not None
    assert elsewhere(watched.peers) == []


@pytest.mark.slow
@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace here")
def test_a_look_up_would_be_seen(tmp_path: Path) -> None:
    seen = watch(tmp_path, "-c", "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 53))")
    assert seen.peers == ["192.0.2.1:53"]
    assert elsewhere(seen.peers) == seen.peers


def test_a_user_who_wants_telemetry_has_it(tmp_path: Path) -> None:
    seen = watch(tmp_path, "-c", _UNTIL_WRITTEN, environment={"ORT_DISABLE_TELEMETRY": "0"})
    assert (seen.code, seen.output) == (0, "0\n")
    assert any("onnxruntime" in file for file in seen.files), "the variable means nothing any more: look again"


@pytest.mark.parametrize("module", _IMPORT_OF)
def test_only_one_file_imports_it(module: str) -> None:
    """Whoever else imports it may be the first, before telemetry is off."""
    folders = ("benchmarks", "cli", "client", "examples", "export", "server", "tests")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    importers = [str(path.relative_to(ROOT)) for path in files if module in _imported(path)]
    assert importers == [_IMPORT_OF[module]]


def _imported(path: Path) -> set[str]:
    """Top-level names that a file imports, or has imported by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(arg.value).partition(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found
