"""`pairwire bulk` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.server import toy_packages
from tests.shared import Shared


@pytest.fixture(scope="module")
def package(shared: Shared) -> Path:
    return shared.directory("package/toy-scorer", toy_packages.write_cross_encoder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"id": number, "first": f"a {number}", "second": "b"} for number in range(30)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path / "in.jsonl"


def test_a_run_and_the_same_again(run: Run, package: Path, source: Path, tmp_path: Path) -> None:
    command = ("bulk", "score", str(source), "-o", str(tmp_path / "out"), "--local", str(package))
    done = run(*command)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"30 rows in 1 parts in {tmp_path / 'out'}: ")
    again = run(*command, "--json")
    summary = json.loads(again.out)
    assert (summary["rows"], summary["resumed_rows"], summary["computed"]) == (30, 30, 0)
    other = run(*command, "--max-length", "20")
    assert other.code == 2
    assert "belongs to another run; options was" in other.err


def test_options_of_tasks_and_of_rows(run: Run, package: Path, tmp_path: Path) -> None:
    rows = [{"q": "a", "d": ["b", "c d", "e"]}, {"q": "x", "d": None}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out = str(tmp_path / "out")
    columns = ("--query-column", "q", "--documents-column", "d", "--top-k", "2", "--local", str(package))
    done = run("bulk", "rerank", "-o", out, *columns, str(tmp_path / "in.jsonl"), "--max-errors", "0")
    assert done.code == 1
    assert "1 bad rows are more than --max-errors 0 (row 1: d: missing)" in done.err
    done = run("bulk", "rerank", "-o", out, *columns, str(tmp_path / "in.jsonl"))
    assert "1 bad rows are in errors.jsonl" in done.out
    found = json.loads((tmp_path / "out" / "data" / "part-00000-00000.jsonl").read_text().splitlines()[0])
    assert len(found["indices"]) == 2


def test_what_cannot_be_read_is_a_sentence(run: Run, package: Path, source: Path, tmp_path: Path) -> None:
    rest = ("-o", str(tmp_path / "out"), "--local", str(package))
    for given, reason in [
        ((str(tmp_path / "no.parquet"),), "no such file or directory"),
        ((str(source), "--first-column", "x"), "no column 'x'"),
        ((str(source), "--shard", "3/3"), "3/3 is no i/n"),
        ((str(source), "--shard", "3"), "is no I/N"),
        ((str(source), "--input-format", "parquet"), "cannot be read as parquet"),
    ]:
        done = run("bulk", "score", *given, *rest)
        assert (done.code, done.out) == (2, "")
        assert reason in done.err
        assert len(done.err.splitlines()) == 1
    assert run("bulk", "score", str(source), *rest[2:]).code == 2
    assert run("bulk").code == 2


def test_pods_of_an_indexed_job(
    run: Run, package: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("bulk", "score", str(source), "-o", str(tmp_path / "out"), "--local", str(package), "--shard-rows", "10")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert "say of how many with --shard /N" in run(*command).err
    assert run(*command, "--shard", "/2").out.startswith("10 rows in 1 parts")
    assert run(*command, "--shard", "0/2").out.startswith("20 rows in 2 parts")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3


def test_the_wrong_kind_of_model(run: Run, package: Path, source: Path, tmp_path: Path) -> None:
    given = ("-o", str(tmp_path / "out"), "--local", str(package), "--text-column", "first")
    done = run("bulk", "embed", str(source), *given)
    assert done.code == 1
    assert "is a cross-encoder; embed needs a bi-encoder" in done.err
