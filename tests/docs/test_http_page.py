"""The curl calls of docs/http.md are answered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import toy_packages
from tests.server.compat.http.running import Running, running

from .reference import DOCS

CALLS = re.findall(r"^\$ (curl .*)$", (DOCS / "http.md").read_text(encoding="utf-8"), re.MULTILINE)
TEXTS = ("/health",)
"""What is answered without JSON."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """``demo``, ``mini`` and ``splade``, as on the page."""
    where: Path = tmp_path_factory.mktemp("http-page")
    packages = [
        toy_packages.write_cross_encoder(where / "demo", name="demo"),
        toy_packages.write_bi_encoder(where / "mini", name="mini"),
        toy_packages.write_sparse_encoder(where / "splade"),
    ]
    with running(*packages) as found:
        yield found


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_what_the_page_types_is_answered(served: Running) -> None:
    assert len(CALLS) > 10
    for call in CALLS:
        command = call.replace("localhost:8080", f"127.0.0.1:{served.port}") + " --fail-with-body"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{call}\n{done.stdout}{done.stderr}"
        if not call.endswith(TEXTS):
            assert json.loads(done.stdout), call
