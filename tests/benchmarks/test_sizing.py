"""The command itself, on a recorded table; and memory on a real server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
QUICK = ["--cpus", "2", "--calls", "60", "--pairs", "4", "--tokens", "32", "64"]


def _run(out: Path, *options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.sizing", "--json", str(out), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_more_load_takes_more_replicas_and_a_longer_wait_fewer(tmp_path: Path) -> None:
    found = {}
    for load, p99_ms in ((200, 100), (2000, 100), (2000, 25)):
        out = tmp_path / "rows.json"
        _run(out, "--costs", "minilm-l6-cpu-int8", *QUICK, "--load", str(load), "--p99-ms", str(p99_ms))
        rows = {row["tokens"]: row for row in json.loads(out.read_text(encoding="utf-8"))}
        for row in rows.values():
            assert row["p99_ms"] <= p99_ms
            assert row["replicas"] * row["pairs_per_s_core"] * 2 * row["busy"] == pytest.approx(load)
        found[load, p99_ms] = [rows[tokens]["replicas"] for tokens in (32, 64)]
    assert found[200, 100] < found[2000, 100] < found[2000, 25]
    assert all(short <= long for short, long in found.values())


@pytest.mark.slow
def test_what_no_replica_can_do_is_said(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    printed = _run(out, "--costs", "minilm-l6-cpu-int8", *QUICK, "--load", "10", "--p99-ms", "0.01")
    assert "'-': one alone takes longer" in printed
    assert all("replicas" not in row for row in json.loads(out.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_package_is_measured_and_its_memory_too(cross_encoder_package: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--package", str(cross_encoder_package), "--passes", "1", "--budget-s", "0.01", "--tokens", "16"]
    assert "MiB at its height" in _run(out, *options)
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert row["pairs_per_s_core"] > 0
    assert 30 << 20 < row["memory_bytes"] < row["limit_bytes"]
