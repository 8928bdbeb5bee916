"""Files in, files out: formats, columns, bad rows, order, duplicates."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairwire.batch import Scorer
from pairwire.batch.errors import InputUnusable, OutputFailed, TooManyErrors
from pairwire.batch.lanes import Where
from tests.server import serving

from .conftest import QUICK, Bulk

ROWS = [
    {"id": number, "first": f"text {number % 40} {'word ' * (number % 8)}", "second": f"other {number % 7}"}
    for number in range(1300)
]


def _write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    table = pa.Table.from_pylist(rows)
    if path.name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=311)
    elif path.name.endswith(".arrow"):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    elif path.name.endswith(".arrows"):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    elif path.name.endswith(".jsonl"):
        path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def _read(directory: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for part in sorted((directory / "data").glob("part-*")):
        if part.suffix == ".parquet":
            rows += pq.read_table(part).to_pylist()
        elif part.suffix == ".arrow":
            rows += pa.ipc.open_file(part.read_bytes()).read_all().to_pylist()
        elif part.suffix == ".jsonl":
            rows += [json.loads(line) for line in part.read_text().splitlines()]
        else:
            with part.open(newline="") as file:
                rows += list(csv.DictReader(file))
    return rows


@pytest.fixture(scope="module")
def expected(scorer_package: Path) -> np.ndarray:
    with Scorer(scorer_package, engine=QUICK) as scorer:
        table = pa.Table.from_pylist(ROWS)
        return scorer(table)["score"].to_numpy()


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow", "in.arrows", "in.jsonl", "in.csv", "in.tsv"])
def test_every_format_comes_out_in_the_order_of_the_input(
    name: str, bulk: Bulk, scorer_package: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    summary = bulk("score", scorer_package, _write(tmp_path / name), shard_rows=500)
    found = _read(tmp_path / "out")
    assert (summary.rows, summary.parts, summary.errors) == (1300, 3, 0)
    assert [int(row["id"]) for row in found] == list(range(1300))
    assert [row["first"] for row in found] == [row["first"] for row in ROWS]
    assert np.array([float(row["score"]) for row in found]) == pytest.approx(expected, abs=1e-5)
    assert summary.computed < 1300, "equal pairs are computed once"
    assert not list((tmp_path / "out" / "data").glob(".part*")), "nothing is left aside"


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl", "csv"])
def test_a_format_can_become_another(form: str, bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    rows = [{**row, "tags": {"a": [1, None]}, "weight": 0.1} for row in ROWS[:20]]
    bulk("score", scorer_package, _write(tmp_path / "in.jsonl", rows), output_format=form)
    found = _read(tmp_path / "out")
    assert [str(row["id"]) for row in found] == [str(row["id"]) for row in rows]
    tags = found[0]["tags"]
    assert (tags if isinstance(tags, dict) else json.loads(tags)) == {"a": [1, None]}
    assert float(found[3]["weight"]) == 0.1


def test_directories_and_globs_and_compressed_lines(bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    _write(tmp_path / "in" / "b.jsonl", ROWS[:5])
    _write(tmp_path / "in" / "deep" / "a.jsonl", ROWS[5:9])
    (tmp_path / "in" / "_SUCCESS").touch()
    (tmp_path / "in" / ".hidden.jsonl").write_text("nonsense")
    summary = bulk("score", scorer_package, tmp_path / "in")
    assert list(summary.files.values()) == [5, 4]
    import gzip

    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "in" / "b.jsonl").read_bytes()))
    summary = bulk("score", scorer_package, str(tmp_path / "*.gz"), output=tmp_path / "other")
    assert summary.rows == 5


def test_bad_rows_are_kept_and_named(bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    lines = [b'{"first": "a", "second": "b"}'] * 600
    lines[3] = b'{"first": 3, "second": "b"}'
    lines[4] = b"no json"
    lines[5] = b'["a"]'
    lines[6] = b'{"first": "a"}'
    lines[7] = b'{"first": "\\ud800", "second": "b"}'
    lines[8] = b'{"first": "\xff", "second": "b"}'
    lines[9] = b'{"first": "a", "second": "b", "score": 3}'
    lines[590] = json.dumps({"first": "a", "second": "word " * 200}).encode()
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    summary = bulk("score", scorer_package, tmp_path / "in.jsonl", truncation="error")
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [each["row"] for each in errors] == [3, 4, 5, 6, 7, 8, 9, 590]
    reasons = ["expected text, got int", "not JSON", "expected an object", "second: missing", "not valid Unicode"]
    reasons += ["not valid UTF-8", "has a field 'score'", "tokens"]
    assert [reason in each["reason"] for each, reason in zip(errors, reasons, strict=True)] == [True] * 8, errors
    found = _read(tmp_path / "out")
    assert len(found) == summary.rows == 600
    assert [row for row, each in enumerate(found) if each["score"] is None] == [3, 4, 5, 6, 7, 8, 9, 590]


def test_bad_rows_of_other_formats(bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'first,second,n\na,b,1\na\n"x\ny","z ""q""",3\n\xff,b,4\na,b,5,6\n')
    summary = bulk("score", scorer_package, tmp_path / "in.csv", output=tmp_path / "csv")
    found = _read(tmp_path / "csv")
    assert (summary.rows, summary.errors) == (5, 3)
    assert found[2]["first"] == "x\ny"
    assert [bool(row["score"]) for row in found] == [True, False, True, False, False]
    bad = pa.StringArray.from_buffers(3, pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"a\xffc"))
    pq.write_table(pa.table({"first": bad, "second": ["x", "y", None]}), tmp_path / "in.parquet")
    summary = bulk("score", scorer_package, tmp_path / "in.parquet", output=tmp_path / "parquet")
    assert summary.errors == 2
    assert [value is None for value in pq.read_table(tmp_path / "parquet" / "data")["score"].to_pylist()] == [
        False,
        True,
        True,
    ]


def test_too_many_bad_rows_end_the_run_and_are_named(bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    _write(tmp_path / "in.parquet", [{"first": None if number > 250 else "a", "second": "b"} for number in range(300)])
    with pytest.raises(TooManyErrors, match=r"49 bad rows are more than --max-errors 48 \(row 251: first: missing"):
        bulk("score", scorer_package, tmp_path / "in.parquet", shard_rows=100, max_errors=48)
    assert len((tmp_path / "out" / "errors.jsonl").read_text().splitlines()) == 49
    assert len(list((tmp_path / "out" / "data").glob("part-*"))) == 2, "what was finished is kept"
    assert bulk("score", scorer_package, tmp_path / "in.parquet", shard_rows=100, max_errors=49).resumed_rows == 200


def test_rerank_embed_and_embed_sparse(
    bulk: Bulk, scorer_package: Path, embedder_package: Path, sparse_package: Path, tmp_path: Path
) -> None:
    queries = [{"query": f"q {number}", "documents": [f"d {at}" for at in range(number % 4)]} for number in range(9)]
    summary = bulk("rerank", scorer_package, _write(tmp_path / "q.jsonl", queries), output=tmp_path / "r", top_k=2)
    assert summary.errors == 3, "a query without documents is a bad row"
    found = _read(tmp_path / "r")
    assert [len(row["indices"] or []) for row in found] == [min(2, number % 4) for number in range(9)]
    assert found[3]["scores"] == sorted(found[3]["scores"], reverse=True)
    texts = _write(tmp_path / "t.parquet", [{"text": f"t {number % 5}"} for number in range(50)])
    assert bulk("embed", embedder_package, texts, output=tmp_path / "e", encoding="float16").computed == 5
    assert pq.read_schema(tmp_path / "e" / "data" / "part-00000-00000.parquet").field("embedding").type == pa.list_(
        pa.float16(), 8
    )
    bulk("embed-sparse", sparse_package, texts, output=tmp_path / "s", max_active_dims=3)
    assert {len(row["values"]) for row in _read(tmp_path / "s")} == {3}
    with pytest.raises(InputUnusable, match="CSV cannot hold the lists"):
        bulk("embed", embedder_package, texts, output=tmp_path / "c", output_format="csv")


def test_what_cannot_be_read_is_said_before_anything_is_done(bulk: Bulk, scorer_package: Path, tmp_path: Path) -> None:
    good = _write(tmp_path / "good.parquet", ROWS[:5])
    (tmp_path / "bad.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "what.bin").touch()
    cases = [
        ("bad.parquet", "cannot be read as parquet"),
        ("empty.csv", "the first line must name the columns"),
        ("missing.parquet", "no such file"),
        ("*.nothing", "no file matches"),
        ("what.bin", "does not say its format"),
    ]
    for name, reason in cases:
        with pytest.raises(InputUnusable, match=reason):
            bulk("score", scorer_package, good, tmp_path / name, output_format="parquet")
    with pytest.raises(InputUnusable, match="no column 'other'"):
        bulk("score", scorer_package, good, columns=("first", "other"))
    with pytest.raises(InputUnusable, match="lies in the input"):
        bulk("score", scorer_package, tmp_path)
    with pytest.raises(InputUnusable, match="nosuch"):
        bulk("score", scorer_package, "nosuch://bucket/a.parquet")
    assert not (tmp_path / "out" / "data").exists()
    assert not (tmp_path / "out" / "run.json").exists(), "nothing was begun"


def test_a_full_disk_ends_the_run_and_what_is_finished_stays(
    bulk: Bulk, scorer_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _write(tmp_path / "in.parquet", ROWS[:300])
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if "part-00000-00002" in path.name:
            raise OSError(28, os.strerror(28))
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputFailed, match=r"No space left on device; what is finished is kept"):
            bulk("score", scorer_package, source, shard_rows=100)
    assert sorted(path.name for path in (tmp_path / "out" / "data").glob("*part-*")) == [
        "part-00000-00000.parquet",
        "part-00000-00001.parquet",
    ]
    assert bulk("score", scorer_package, source, shard_rows=100).resumed_rows == 200


async def test_servers_give_what_the_package_gives(
    bulk: Bulk, scorer_package: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    import asyncio

    source = _write(tmp_path / "in.parquet")
    async with serving.start(scorer_package) as server:
        where = Where(addresses=(f"127.0.0.1:{server.port}",))
        summary = await asyncio.to_thread(bulk, "score", scorer_package, source, where=where)
    assert summary.rows == 1300
    assert [row["score"] for row in _read(tmp_path / "out")] == pytest.approx(expected, abs=1e-5)
