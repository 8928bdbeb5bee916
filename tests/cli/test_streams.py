"""Streams that are closed, full, or of an encoding that lacks what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pairwire.cli.exits import BROKEN_PIPE

SCRIPT = """
import os, sys
for descriptor in map(int, sys.argv[1].split()):
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-m", "pairwire.cli.main", *sys.argv[2:]])
"""
"""Runs the command without the descriptors that are listed first."""


def command(
    *arguments: str, closed: str = "", encoding: str = "utf-8", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, closed, *arguments],
        env={"PATH": "", "PYTHONIOENCODING": encoding},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


@pytest.fixture(scope="module")
def foreign(cross_encoder_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose labels and source are not ASCII."""
    directory = tmp_path_factory.mktemp("packages") / "Größe"
    directory.mkdir()
    for file in cross_encoder_package.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    manifest = directory / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**content, "source": "größe 日本"}), encoding="utf-8")
    return directory


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "gr\\xf6\\xdfe \\u65e5"), ("latin-1", "größe \\u65e5")])
def test_what_stdout_lacks_is_escaped(foreign: Path, encoding: str, shown: str) -> None:
    done = command("inspect", str(foreign), encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json(foreign: Path, encoding: str) -> None:
    done = command("inspect", "--json", str(foreign), encoding=encoding)
    assert json.loads(done.stdout.decode(encoding))["manifest"]["source"] == "größe 日本"


def test_an_error_about_a_path_is_shown_in_ascii(tmp_path: Path) -> None:
    done = command("inspect", str(tmp_path / "Größe"), encoding="ascii")
    assert done.returncode == 1
    assert b"/Gr\\xf6\\xdfe: no manifest.json there" in done.stderr


def test_a_full_output_is_a_sentence(cross_encoder_package: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = command("inspect", str(cross_encoder_package), stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"pairwire: the output cannot be written: No space left on device\n"


def test_a_closed_output_is_one_that_nobody_reads(cross_encoder_package: Path) -> None:
    done = command("inspect", str(cross_encoder_package), closed="1")
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, b"")


@pytest.mark.parametrize("closed", ["0", "2", "0 2"])
def test_other_streams_may_be_closed(cross_encoder_package: Path, closed: str) -> None:
    done = command("inspect", str(cross_encoder_package), closed=closed)
    assert done.returncode == 0
    assert done.stdout.startswith(b"tiny-cross-encoder")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    done = command("inspect", str(tmp_path / "nothing"), closed="0 1 2")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
