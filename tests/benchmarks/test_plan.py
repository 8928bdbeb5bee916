"""The command itself: every rule on a real distribution in virtual time, and the planner's own time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RULES = {"fifo-32", "sorted-budget", "tei", "tei-tuned", "triton", "pairwire", "pairwire-10ms"}


def _run(out: Path, *options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.plan", "--json", str(out), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_rule_is_compared_on_every_load_and_the_same_again_for_the_same_seed(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--calls", "60", "--dataset", "builtin", "lognormal", "--costs", "minilm-l6-cpu-int8", "modelled-gpu"]
    printed = _run(out, *options)
    assert "NOT MEASURED" in printed
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert {(row["costs"], row["dataset"], row["load"], row["rule"]) for row in rows} == {
        (costs, dataset, load, rule)
        for costs in ("minilm-l6-cpu-int8", "modelled-gpu")
        for dataset in ("builtin", "lognormal")
        for load in ("saturated", "80% open")
        for rule in RULES
    }
    for row in rows:
        assert row["pairs_per_s"] > 0
        assert row["p50_ms"] <= row["p99_ms"]
        assert 0 <= row["padding"] < 1
    again = tmp_path / "again.json"
    _run(again, *options)
    without_machine = [{**row, "machine": None} for row in rows]
    assert [{**row, "machine": None} for row in json.loads(again.read_text(encoding="utf-8"))] == without_machine


@pytest.mark.slow
def test_padding_is_where_the_rules_differ(tmp_path: Path) -> None:
    """What the comparison is there to show: on a CPU ours wastes least, and a fixed batch in order of arrival most."""
    _run(tmp_path / "rows.json", "--calls", "100", "--dataset", "lognormal", "--load")
    rows = {row["rule"]: row for row in json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))}
    assert set(rows) == RULES
    ours = {rule for rule in rows if rule.startswith("pairwire")}
    assert max(float(rows[rule]["padding"]) for rule in ours) < min(
        float(rows[rule]["padding"]) for rule in rows.keys() - ours
    )
    assert max(rows, key=lambda rule: float(rows[rule]["padding"])) == "fifo-32"
    assert rows["pairwire"]["pairs_per_s"] > 2 * rows["tei"]["pairs_per_s"]


@pytest.mark.slow
def test_a_package_is_measured_and_its_planning_is_timed(cross_encoder_package: Path, tmp_path: Path) -> None:
    recorded, out = tmp_path / "tiny.json", tmp_path / "rows.json"
    measured = ["--package", str(cross_encoder_package), "--passes", "1", "--record", str(recorded)]
    _run(out, *measured, "--plan-time", "--pool", "1", "30", "--dataset", "builtin")
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["pool"] for row in rows] == [1, 30]
    assert all(0 < row["plan_share"] < row["scheduler_share"] for row in rows)
    _run(out, "--costs", str(recorded), "--calls", "20", "--dataset", "builtin", "--rule", "triton")
    assert {row["rule"] for row in json.loads(out.read_text(encoding="utf-8"))} == {"triton", "pairwire"}


def test_an_unknown_table_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.plan", "--costs", "nope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "nope: not a recorded cost table" in done.stderr
