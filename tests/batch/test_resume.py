"""A run may be killed at any moment: it ends with the same bytes, and computes at most one shard twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairwire.batch import Job
from pairwire.batch.errors import InputUnusable, MixedRun
from pairwire.batch.manifest import locked
from tests.server import toy_packages

from .conftest import Bulk
from .killed import SHARD_ROWS

ROWS = 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draws = random.Random(1)
    words = ["tide", "moon", "sea", "bread", "flour", "a", "b", "the", "what", "is"]
    texts = [f"{number} {' '.join(draws.choices(words, k=draws.randint(1, 30)))}" for number in range(ROWS)]
    table = pa.table({"first": texts, "second": [None if number % 97 == 5 else "b c" for number in range(ROWS)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=170)
    return tmp_path / "in.parquet"


def _bytes(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _run(package: Path, source: Path, output: Path, log: Path, kill_at: int, processes: int = 1) -> int:
    command = [
        sys.executable,
        "-m",
        "tests.batch.killed",
        *map(str, (package, source, output, log, kill_at, processes)),
    ]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_killed_at_random_events_it_ends_with_the_same_bytes(
    bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path
) -> None:
    whole = bulk("score", scorer_package, source, output=tmp_path / "whole", shard_rows=SHARD_ROWS)
    draws = random.Random(14)
    log, kills = tmp_path / "log", 0
    while (code := _run(scorer_package, source, tmp_path / "killed", log, draws.randint(1, 45))) != 0:
        assert code == -9, "it ended for another reason"
        kills += 1
    assert kills >= 3
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")
    computed = sum(map(int, log.read_text().split()))
    assert whole.computed <= computed <= whole.computed + kills * SHARD_ROWS


def test_several_processes_end_with_the_same_bytes_too(
    bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path
) -> None:
    bulk("score", scorer_package, source, output=tmp_path / "whole", shard_rows=SHARD_ROWS)
    assert _run(scorer_package, source, tmp_path / "killed", tmp_path / "log", 5, 2) == -9
    summary = bulk("score", scorer_package, source, output=tmp_path / "killed", shard_rows=SHARD_ROWS, processes=2)
    assert summary.rows == ROWS
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def test_shards_of_a_run_together_are_the_run(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    bulk("score", scorer_package, source, output=tmp_path / "whole", shard_rows=SHARD_ROWS)
    rows = [
        bulk("score", scorer_package, source, output=tmp_path / "parts", shard_rows=SHARD_ROWS, shard=(index, 3)).rows
        for index in range(3)
    ]
    assert rows == [400, 300, 300]
    whole, parts = _bytes(tmp_path / "whole"), _bytes(tmp_path / "parts")
    names = [name for name in whole if name.startswith("data/")]
    assert {name: parts[name] for name in names} == {name: whole[name] for name in names}
    lines = [parts[f"manifest-{index:05d}-of-00003.jsonl"].splitlines() for index in range(3)]
    assert sorted(line for some in lines for line in some) == whole["manifest.jsonl"].splitlines()


def test_a_finished_run_is_not_done_again(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    bulk("score", scorer_package, source)
    before = _bytes(tmp_path / "out")
    again = bulk("score", scorer_package, source)
    assert (again.resumed_rows, again.computed, again.rows) == (ROWS, 0, ROWS)
    assert _bytes(tmp_path / "out") == before


def test_a_part_that_is_gone_or_cut_is_made_again(
    bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path
) -> None:
    bulk("score", scorer_package, source, shard_rows=SHARD_ROWS)
    before = _bytes(tmp_path / "out")
    (tmp_path / "out" / "data" / "part-00000-00003.parquet").unlink()
    (tmp_path / "out" / "data" / "part-00000-00006.parquet").write_bytes(b"half")
    again = bulk("score", scorer_package, source, shard_rows=SHARD_ROWS)
    assert again.resumed_rows == ROWS - 2 * SHARD_ROWS
    assert _bytes(tmp_path / "out") == before


def test_another_run_does_not_mix(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    bulk("score", scorer_package, source)
    other = toy_packages.write_cross_encoder(tmp_path / "other", labels=("a", "b"))
    with pytest.raises(MixedRun, match="belongs to another run; package was"):
        bulk("score", other, source)
    with pytest.raises(MixedRun, match="options was"):
        bulk("score", scorer_package, source, max_length=20)
    with pytest.raises(MixedRun, match="shard_rows was 32768 and is now 50"):
        bulk("score", scorer_package, source, shard_rows=50)
    with pytest.raises(MixedRun, match="output_format"):
        bulk("score", scorer_package, source, output_format="jsonl")
    (tmp_path / "more.parquet").write_bytes(source.read_bytes())
    with pytest.raises(MixedRun, match=r"more.parquet is new since"):
        bulk("score", scorer_package, source, tmp_path / "more.parquet")


def test_a_changed_input_is_noticed(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    bulk("score", scorer_package, source)
    source.write_bytes(source.read_bytes())
    with pytest.raises(MixedRun, match=r"in.parquet has changed since"):
        bulk("score", scorer_package, source)


def test_an_input_that_changes_meanwhile_is_noticed(
    bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pairwire.batch import worker

    read = worker.read_texts

    def rewriting(*given):  # type: ignore[no-untyped-def]
        source.write_bytes(source.read_bytes())
        return read(*given)

    monkeypatch.setattr(worker, "read_texts", rewriting)
    with pytest.raises(InputUnusable, match="changed while it was read"):
        bulk("score", scorer_package, source)
    assert not list((tmp_path / "out" / "data").glob("*"))


def test_two_runs_at_once_refuse(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "out", (0, 1)), pytest.raises(MixedRun, match="another run is writing there"):
        bulk("score", scorer_package, source)
    with locked(tmp_path / "out", (1, 2)):
        with pytest.raises(MixedRun, match="another run is writing there"):
            bulk("score", scorer_package, source)
        with pytest.raises(MixedRun, match="another run is writing there"):
            bulk("score", scorer_package, source, shard=(1, 2))
        bulk("score", scorer_package, source, shard=(0, 2), shard_rows=SHARD_ROWS)


def test_the_manifest_says_what_was_done(bulk: Bulk, scorer_package: Path, source: Path, tmp_path: Path) -> None:
    bulk("score", scorer_package, source, shard_rows=SHARD_ROWS)
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert [line["first_row"] for line in lines] == list(range(0, ROWS, SHARD_ROWS))
    assert len({line["package"] for line in lines}) == 1
    assert lines[0]["options"] == Job.of("score").described()
    assert lines[0]["input"]["size"] == source.stat().st_size
    assert [error["row"] for line in lines for error in line["errors"]] == list(range(5, ROWS, 97))
