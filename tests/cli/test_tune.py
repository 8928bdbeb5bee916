"""`pairwire tune` on a real package, with a made-up stopwatch where the numbers matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pairwire.server.package import read_package
from pairwire.server.tuning import tune
from tests.cli.conftest import Run
from tests.server import toy_packages
from tests.server.tuning.timings import by_name


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return toy_packages.write_cross_encoder(tmp_path / "toy")


@pytest.fixture
def _smaller_batches_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tune.tune_package.__kwdefaults__, "measure", by_name({"256 tokens": 7}))


@pytest.mark.usefixtures("_smaller_batches_win")
def test_a_choice_is_written_and_shown_by_inspect(run: Run, package: Path) -> None:
    done = run("tune", str(package))
    assert done.code == 0
    assert "cpu-fp32, batch_tokens: 256 tokens (30.0% faster than 512 tokens)" in done.err
    assert "cpu-fp32: batch_tokens, microseconds a token (" in done.out
    assert done.lines[-1] == f"written to {package}; servers obey it from their next start on"
    assert read_package(package).manifest.variants[0].batch_tokens == 256
    shown = run("inspect", str(package))
    assert shown.code == 0
    assert "batches of at most 256 tokens" in shown.out
    assert "30.0% faster than 512 tokens" in shown.out


@pytest.mark.usefixtures("_smaller_batches_win")
def test_a_dry_run_writes_nothing(run: Run, package: Path) -> None:
    before = (package / "manifest.json").read_bytes()
    done = run("tune", str(package), "--dry-run")
    assert (done.code, done.lines[-1]) == (0, "nothing was written (--dry-run)")
    assert "*  256 tokens" in done.out
    assert (package / "manifest.json").read_bytes() == before


@pytest.mark.usefixtures("_smaller_batches_win")
def test_json_has_the_choices_and_their_tables(run: Run, package: Path) -> None:
    found = json.loads(run("tune", str(package), "--json").out)
    assert found["directory"] == str(package)
    assert found["changes"] == ["cpu-fp32, batch_tokens: 256 tokens (30.0% faster than 512 tokens)"]
    subjects = [tuning["subject"] for tuning in found["variants"][0]["tunings"]]
    assert subjects == ["optimizers", "batch_tokens"]


def test_errors_are_sentences(run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run("tune", str(tmp_path / "nowhere"))
    assert (missing.code, "make a package with `pairwire export" in missing.err) == (1, True)
    unknown = run("tune", str(package), "--variant", "cpu-int4")
    assert (unknown.code, "no variant 'cpu-int4'" in unknown.err) == (1, True)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pairwire.server.package.tempfile.TemporaryFile", refuse)
    closed = run("tune", str(package))
    assert closed.code == 2
    assert closed.err == (
        f"pairwire: {package}: the manifest cannot be written there (Permission denied);"
        " --dry-run measures without writing\n"
    )


@pytest.mark.slow
def test_an_exported_package_still_scores_the_same_after_tuning(
    run: Run, cross_encoder_package: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "package"
    shutil.copytree(cross_encoder_package, copy)
    before = run("score", "--local", str(copy), "a cat", "a dog").out
    assert run("tune", str(copy)).code == 0
    assert float(run("score", "--local", str(copy), "a cat", "a dog").out) == pytest.approx(float(before), abs=1e-5)
