"""The overload test against a real server, for a second: what it counts adds up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.overload.__main__ import main
from benchmarks.overload.sending import unlike

SHORT = ["--duration", "0.5", "--warmup", "0.1", "--processes", "1", "--serve-option=--warmup-s=0.05", "--seed", "3"]


def rows_of(package: Path, tmp_path: Path, *arguments: str) -> list[dict[str, object]]:
    out = tmp_path / "rows.json"
    main(["--package", str(package), "--json", str(out), *SHORT, *arguments])
    found: list[dict[str, object]] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_at_twice_the_capacity_every_call_has_an_outcome(cross_encoder_package: Path, tmp_path: Path) -> None:
    (row,) = rows_of(cross_encoder_package, tmp_path, "--load", "2", "--pairs", "4", "--deadline", "0.3")
    counts = dict(each.split() for each in str(row["codes"]).split(", "))
    assert set(counts) <= {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert sum(map(int, counts.values())) == row["calls"]
    assert row["in_time"] == pytest.approx(int(counts.get("OK", 0)) / int(str(row["calls"])))
    assert float(str(row["goodput"])) > 0


@pytest.mark.slow
def test_partial_answers_are_compared_with_plain_ones(cross_encoder_package: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_scifact(data / "scifact")
    arguments = ("--partial", "--data", str(data), "--depth", "4", "--load", "2")
    nothing, leisure, plain, partial = rows_of(cross_encoder_package, tmp_path, *arguments)
    assert (nothing["scored"], leisure["scored"]) == (0, 1)
    assert nothing["ndcg_at_10"] == 1  # the right document is the first
    assert (plain["partial_ok"], partial["partial_ok"]) == (False, True)
    for row in (plain, partial):
        assert 0 <= float(str(row["scored"])) <= 1
        assert 0 < float(str(row["ndcg_at_10"])) <= 1
    assert set(str(partial["codes"]).split()[::2]) <= {"OK", "DEADLINE_EXCEEDED"}


@pytest.mark.slow
def test_the_largest_requests_are_sent_and_end_when_they_are_cancelled(
    cross_encoder_package: Path, tmp_path: Path
) -> None:
    arguments = ("--large", "--documents", "50", "--kilobytes", "2", "--at-once", "2")
    alone, beside = rows_of(cross_encoder_package, tmp_path, *arguments)
    assert (alone["beside"], beside["beside"]) == ("-", "large requests")
    assert int(str(beside["peak_mib"])) >= int(str(alone["peak_mib"])) // 2 > 0
    assert float(str(beside["idle_after_s"])) > 0


def write_scifact(folder: Path) -> None:
    """Three claims with four documents each, of which the first is the right one."""
    (folder / "qrels").mkdir(parents=True)
    claims, documents, run, judged = [], [], [], ["query-id\tcorpus-id\tscore"]
    for claim in range(3):
        claims.append(json.dumps({"_id": f"{claim}", "text": f"claim {claim}"}))
        for rank in range(1, 5):
            name = f"{claim}{rank}"
            documents.append(json.dumps({"_id": name, "title": "title", "text": f"text {name}"}))
            run.append(f"{claim} Q0 {name} {rank} {10 - rank} bm25")
        judged.append(f"{claim}\t{claim}1\t1")
    for name, lines in (("queries.jsonl", claims), ("corpus.jsonl", documents), ("bm25.test.top100.trec", run)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")


def test_partial_needs_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--package", "never-read", "--partial"])
    assert "--partial needs --data DIR" in capsys.readouterr().err


def test_no_two_pairs_have_a_text_in_common() -> None:
    fresh = unlike([("a", "b"), ("c", "d")])
    texts = [text for _ in range(6) for text in set(next(fresh))]
    assert len(set(texts)) == len(texts) == 12
