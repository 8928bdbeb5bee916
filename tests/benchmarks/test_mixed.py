"""Mixed load against a real server: requests share no pair, and the figures fit together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mixed import Phase, Record, build_requests, summarise
from pairwire.v1 import scoring_pb2

ROOT = Path(__file__).parent.parent.parent


def test_no_pair_is_in_two_requests() -> None:
    pairs = [(f"question {at}", f"answer {at}") for at in range(100)]
    requests, sizes = build_requests(pairs, 50, seed=0)
    seen = [
        pair.first for request in requests for pair in scoring_pb2.ScoreRequest.FromString(request).text_pairs.pairs
    ]
    assert len(seen) == len(set(seen)) == sum(sizes)
    assert len(requests) == len(sizes) > 5


def test_slowdown_is_relative_to_the_same_request() -> None:
    record = Record(unloaded_s=[0.01, 0.1], capacity=100)
    phase = Phase(which=[0, 1, 0], latency_s=[0.02, 0.1, 9.0], codes=["OK", "OK", "UNAVAILABLE"], tokens=90)
    phase.padded_tokens = 10
    row = summarise(record, phase, [1, 16], duration_s=2.0)
    assert row["slowdown_p50"] == pytest.approx(1.5)
    assert (row["errors"], row["padding"], row["offered_pairs_per_s"]) == ("UNAVAILABLE 1", 0.1, 9.0)


@pytest.mark.slow
def test_mixed_load_on_a_real_server(cross_encoder_package: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.mixed", "--package", str(cross_encoder_package), "--json", str(out)]
    short = ["--duration", "1", "--requests", "5", "--share", "0.3", "--serve-option=--warmup-s=0.05"]
    done = subprocess.run([*command, *short], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text(encoding="utf-8"))
    assert row["errors"] == "0"
    assert row["calls"] > 0
    assert row["capacity_pairs_per_s"] > 0
    assert 0 <= row["padding"] < 1
