"""One fault fails one test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

FAULTS = """
import gc, os, socket

def test_that_fails_with_a_socket_open():
    opened = socket.socket()
    assert opened is None

def test_that_follows_the_failure():
    gc.collect()

def test_that_leaves_a_socket_in_a_cycle():
    loop = [socket.socket()]
    loop.append(loop)

def test_that_follows_the_cycle():
    gc.collect()

def test_that_forks():
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)

def test_that_follows_the_fork():
    gc.collect()
"""


def test_each_fault_is_reported_by_the_test_that_has_it_and_by_no_other(tmp_path: Path) -> None:
    (tmp_path / "test_faults.py").write_text(FAULTS)
    plugins = ("-p", "tests.isolation", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *plugins, "-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(FAILED|ERROR) \S+::(\w+)", done.stdout, re.MULTILINE)
    assert sorted(found) == [
        ("ERROR", "test_that_leaves_a_socket_in_a_cycle"),
        ("FAILED", "test_that_fails_with_a_socket_open"),
        ("FAILED", "test_that_forks"),
    ], done.stdout + done.stderr
