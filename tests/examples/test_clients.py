"""The clients in other languages are built and run against a server, where Node or Go is installed.

They fetch packages, so they run only with ``--fetch``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import serving
from pairwire.client import Client
from tests.server import toy_packages

ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / "examples" / "clients"
QUERY = "What causes ocean tides?"
DOCUMENTS = ["A recipe for bread.", "The pull of the moon on the sea.", "Wind makes waves."]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def may_fetch(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--fetch"):
        pytest.skip("fetches packages of npm and Go; `make test-clients` runs it")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving([toy_packages.write_cross_encoder(tmp_path_factory.mktemp("packages") / "scorer")]) as server:
        yield server.address


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=250)


def built(*command: str | Path, cwd: Path, **variables: str) -> None:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr


def check(program: list[str | Path], address: str, cwd: Path, **variables: str) -> None:
    """It prints what the Python client finds, and a sentence where there is no server."""
    done = run(*program, address, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    with Client(address) as client:
        expected = [f"{found.score:.6f}  {found.document}" for found in client.rerank(QUERY, DOCUMENTS, top_k=2)]
    assert done.stdout.splitlines() == [*expected, "by scorer"]


def test_typescript(address: str, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no Node here; apt-get install nodejs npm")
    here = Path(shutil.copytree(CLIENTS / "typescript", tmp_path / "typescript"))
    scripts = here / "package.json"
    scripts.write_text(scripts.read_text().replace("../../../protos", str(ROOT / "protos")))
    fetched = run("npm", "install", "--no-audit", "--no-fund", "--prefer-offline", cwd=here)
    if fetched.returncode:
        pytest.skip(f"npm has no packages here: {fetched.stderr.strip().splitlines()[-1]}")
    built("npm", "run", "generate", cwd=here)
    built("npm", "run", "build", cwd=here)
    check(["node", "build/rerank.js"], address, here, PAIRWIRE_PROTOS=str(ROOT / "protos"))


def test_go(address: str, tmp_path: Path) -> None:
    if missing := [name for name in ("go", "protoc-gen-go", "protoc-gen-go-grpc") if shutil.which(name) is None]:
        pytest.skip(f"no {missing[0]} here; see examples/clients/README.md")
    here = Path(shutil.copytree(CLIENTS / "go", tmp_path / "go"))
    built("bash", "-c", _generate(), cwd=here)
    fetched = run("go", "mod", "tidy", cwd=here, GOFLAGS="-mod=mod")
    if fetched.returncode:
        pytest.skip(f"no modules for Go here: {fetched.stderr.strip().splitlines()[-1]}")
    built("go", "build", "-o", "rerank", ".", cwd=here)
    check([here / "rerank"], address, here)


def _generate() -> str:
    """The command of the README, with the protoc that is here."""
    text = (CLIENTS / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^protoc (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert found is not None
    command = found[0].replace("../../../protos", str(ROOT / "protos"))
    return command.replace("protoc ", f"{sys.executable} -m grpc_tools.protoc ", 1)
