"""Programs that only these tests need: from the environment of `make test-deploy`, or wherever the machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

TOOLS = "TEST_TOOLS"
"""Variable with the folder of the environment."""


def find(name: str) -> str | None:
    """The path of a program."""
    folder = os.environ.get(TOOLS)
    return (shutil.which(name, path=str(Path(folder).absolute() / "bin")) if folder else None) or shutil.which(name)


def tool(name: str) -> str:
    """The path of a program; the test is skipped where there is none."""
    found = find(name)
    if found is None:
        pytest.skip(f"{name} is not there; `make test-deploy` brings it, or says what does")
    return found


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program writes; it must end with 0."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{_said(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _said(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command))
