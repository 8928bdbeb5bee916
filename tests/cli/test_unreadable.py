"""Packages and inputs that cannot be read: one sentence that names the file, by every command.

``/proc/self/mem`` stands for an input that is there and cannot be read: root may read all others. It cannot stand for a
file of a package, as links that lead out of it are refused unread.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run

UNREADABLE = Path("/proc/self/mem")
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"
DEEP = "[" * 100_000
COMMANDS = {
    "inspect": ("inspect",),
    "tune": ("tune", "--dry-run"),
    "profile": ("profile",),
    "score": ("score", "a", "b", "--local"),
    "serve": ("serve", "--port=0", "--metrics-port=-1"),
    "processes": ("serve", "--port=0", "--metrics-port=-1", "--processes=2"),
}
Damage = Callable[[Path], object]


def replaced(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(package: Path) -> None:
        (package / name).unlink()
        make(package / name)

    return damage


@pytest.fixture
def package(cross_encoder_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cross_encoder_package, tmp_path / "model"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file of a package")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "cpu-fp32.onnx"])
def test_a_file_of_a_package_that_cannot_be_read_is_named(run: Run, package: Path, name: str, command: str) -> None:
    (package / name).chmod(0)
    is_refused(run, package, name, command, "cannot be read (Permission denied)")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "cpu-fp32.onnx"])
def test_a_link_out_of_a_package_is_named(run: Run, package: Path, name: str, command: str) -> None:
    replaced(name, lambda path: path.symlink_to(UNREADABLE))(package)
    is_refused(run, package, name, command, "a link that leads out of the package")


def is_refused(run: Run, package: Path, name: str, command: str, reason: str) -> None:
    done = run(*COMMANDS[command], str(package))
    told = done.out if command == "inspect" and name.endswith("onnx") else done.err
    assert f"{package / name}: {reason}" in told
    assert "Traceback" not in done.err
    assert done.code == (2 if COMMANDS[command][0] == "serve" else 1)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (replaced("manifest.json", lambda path: path.mkdir()), "no manifest.json there"),
        (replaced("manifest.json", lambda path: os.mkfifo(path)), "no manifest.json there"),
        (replaced("manifest.json", lambda path: path.symlink_to("gone")), "no manifest.json there"),
        (replaced("manifest.json", lambda path: path.symlink_to(path)), "no manifest.json there"),
        (replaced("manifest.json", lambda path: path.write_text("")), "not a manifest that this version reads"),
        (replaced("manifest.json", lambda path: path.write_text(DEEP)), "not a manifest that this version reads"),
        (replaced("manifest.json", lambda path: path.write_text("[]")), "package format 0, this version reads 1"),
        (replaced("manifest.json", lambda path: path.write_text('{"name": 3}')), "not a manifest that this version"),
        (replaced("manifest.json", lambda path: path.write_bytes(b"\xff")), "not a manifest that this version reads"),
        (replaced("manifest.json", lambda path: path.write_text(LFS)), "manifest.json: a git-lfs pointer in place of"),
        (replaced("tokenizer.json", lambda path: path.write_text(LFS)), "tokenizer.json: sha256 is"),
        (replaced("tokenizer.json", lambda path: os.mkfifo(path)), "tokenizer.json: missing"),
        (replaced("tokenizer.json", lambda path: path.mkdir()), "tokenizer.json: missing"),
    ],
)
def test_a_damaged_package_is_a_sentence(run: Run, package: Path, damage: Damage, sentence: str) -> None:
    damage(package)
    done = run("inspect", str(package))
    assert done.code == 1
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_a_pointer_in_place_of_a_graph_says_what_to_do(run: Run, package: Path) -> None:
    (package / "cpu-fp32.onnx").write_text(LFS)
    assert "it is a git-lfs pointer in place of the file, run `git lfs pull`" in run("inspect", str(package)).out


@pytest.mark.parametrize("name", ["caf\udce9", "x" * 300])
@pytest.mark.parametrize("command", ["inspect", "score", "serve"])
def test_a_path_that_cannot_be_is_a_sentence(run: Run, tmp_path: Path, name: str, command: str) -> None:
    done = run(*COMMANDS[command], str(tmp_path / name))
    assert done.code == (2 if command == "serve" else 1)
    assert "not UTF-8" in done.err or "File name too long" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("content", "sentence"), [(DEEP, "not TOML"), ("port = " + DEEP, "nested too deeply"), ("a\0", "not TOML")]
)
def test_a_configuration_that_cannot_be_read_is_a_sentence(
    run: Run, tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "pairwire.toml"
    file.write_text(content)
    done = run("serve", "--config", str(file))
    assert done.code == 2
    assert sentence in done.err
    assert run("serve", "--config", str(UNREADABLE)).code == 2
    assert run("serve", "--config", str(tmp_path)).code == 2


def test_a_byte_order_mark_before_a_configuration_is_read_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pairwire.toml").write_bytes(b"\xef\xbb\xbfport = 7001\n")
    assert "port = 7001" in run("serve", "--config", str(tmp_path / "pairwire.toml"), "--print-config").out


def test_models_of_a_configuration_may_not_hold_a_nul(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pairwire.toml").write_text('models = ["a\\u0000b"]\n')
    done = run("serve", "--config", str(tmp_path / "pairwire.toml"), "--port=0", "--metrics-port=-1")
    assert done.code == 2
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["score", "embed", "rerank"])
def test_deeply_nested_lines_are_a_sentence(remote: Run, command: str) -> None:
    done = remote(command, "--format=jsonl", stdin='{"a":' * 100_000)
    assert done.code == 2
    assert done.err.startswith("pairwire: line 1: not JSON")
    assert "nested too deeply" in done.err


@pytest.mark.parametrize("command", ["score", "embed", "rerank"])
def test_an_input_that_cannot_be_read_is_named(remote: Run, tmp_path: Path, command: str) -> None:
    assert f"{UNREADABLE}: Input/output error" in remote(command, "-i", str(UNREADABLE)).err
    assert f"{tmp_path}: Is a directory" in remote(command, "-i", str(tmp_path)).err
