from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pairwire.cli.main import main
from pairwire.export.cli import EXIT_BAD_INPUT, EXIT_PARITY
from pairwire.server.package import read_package


def run(*arguments: str) -> int:
    return main(["export", *arguments])


def test_package_is_written_and_steps_go_to_stderr(
    cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        str(cross_encoder_checkpoint),
        "-o",
        str(tmp_path / "model"),
        "--no-tune",
        "--precision",
        "fp32",
        "--name",
        "mine",
    )
    captured = capsys.readouterr()
    assert code == 0
    assert captured.out == ""
    assert "prune_last_layer, 1 place" in captured.err
    assert "cpu-fp32: max" in captured.err
    assert "passed" in captured.err
    assert "Warning" not in captured.err
    assert read_package(tmp_path / "model").name == "mine"


def test_int8_is_the_default(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    assert run(str(cross_encoder_checkpoint), "-o", str(tmp_path / "model"), "--no-tune", "--no-parity") == 0
    assert [variant.name for variant in read_package(tmp_path / "model").manifest.variants] == ["cpu-int8"]


def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("/nowhere/model", "-o", str(tmp_path / "model")) == EXIT_BAD_INPUT
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "pairwire export: /nowhere/model: no such directory"
    assert list(tmp_path.iterdir()) == []


def test_bad_option_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model", "-o", str(tmp_path / "model"), "--max-length", "2") == EXIT_BAD_INPUT
    assert "max-length: 2 leaves no room" in capsys.readouterr().err


def test_failed_parity_is_exit_code_3(
    cross_encoder_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        str(cross_encoder_checkpoint),
        "-o",
        str(tmp_path / "model"),
        "--no-tune",
        "--parity-threshold",
        "1",
        "--no-tune",
    )
    assert code == EXIT_PARITY
    assert "no package was made: cpu-int8 ranks unlike the checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_lists_exit_codes_and_warns_of_dynamic_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert "WARNING: the score of a pair then moves with its batch-mates" in text


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import argparse, sys; from pairwire.export.cli import add_parser;"
        "add_parser(argparse.ArgumentParser().add_subparsers());"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'numpy', 'sentence_transformers', 'optimum'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
