"""The soak on real packages, shortened: it samples, judges and says so by its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import Draws, growth_percent

ROOT = Path(__file__).parent.parent.parent


def test_texts_have_every_length_and_come_again_with_the_seed() -> None:
    words = [f"w{at}" for at in range(300)]
    draws = Draws(words, most_rows=4, seed=1)
    counts = [len(draws.text(64).split()) for _ in range(2000)]
    assert (min(counts), max(counts)) == (1, 64)
    assert sum(count <= 8 for count in counts) == pytest.approx(1000, rel=0.2)
    assert len(draws.text(64, longest=True).split()) == 64
    assert {draws.rows() for _ in range(200)} == {1, 2, 3, 4}
    assert Draws(words, 4, seed=7).text(64) == Draws(words, 4, seed=7).text(64)


def test_growth_is_that_of_the_highest_sample() -> None:
    assert growth_percent([{"growth_percent": value} for value in (0.0, 0.0, 2.5, -1.0)]) == 2.5


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code"), [("1000", 0), ("-100", 1)])
def test_the_exit_code_tells_whether_memory_grew(
    limit: str, code: int, cross_encoder_package: Path, bi_encoder_package: Path, tmp_path: Path
) -> None:
    out = tmp_path / "samples.json"
    packages = [str(cross_encoder_package), str(bi_encoder_package)]
    command = [sys.executable, "-m", "benchmarks.soak", "--package", *packages, "--json", str(out), "--limit", limit]
    short = ["--minutes", "0.03", "--warmup", "1", "--warmup-requests", "1", "--every", "0.2"]
    done = subprocess.run([*command, *short], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    assert "resident memory grew by" in done.stdout
    samples = json.loads(out.read_text(encoding="utf-8"))
    assert samples[0]["rss_mib"] > 0
    assert samples[-1]["requests"] > 0
    assert samples[0]["growth_percent"] == 0


@pytest.mark.slow
def test_a_soak_that_never_warmed_up_says_so(cross_encoder_package: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--package", str(cross_encoder_package), "--minutes", "0.02"]
    short = ["--warmup", "0.1", "--warmup-requests", "1000000", "--every", "0.2"]
    done = subprocess.run([*command, *short], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "requests, and the warm-up alone takes 1000000" in done.stderr
