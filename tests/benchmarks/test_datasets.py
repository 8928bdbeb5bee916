"""The readers, on files of the same format as the public ones."""

import json
from pathlib import Path

import pytest

from benchmarks.datasets import load_pairs, read_pairs, scifact_candidates


def test_builtin_pairs_need_no_files() -> None:
    pairs = load_pairs("builtin", None)
    assert len(pairs) >= 20
    assert all(first and second for first, second in pairs)


def test_every_public_format_is_read(tmp_path: Path) -> None:
    for folder in ("stsb-en", "qnli", "xquad", "scifact"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stsb-en" / "stsb-en-test.csv").write_text('"a, b",c,2.5\n', encoding="utf-8")
    (tmp_path / "qnli" / "dev.tsv").write_text(
        'index\tquestion\tsentence\tlabel\n0\tWho?\tA "quote.\tentailment\n', encoding="utf-8"
    )
    paragraph = {"context": "text", "qas": [{"question": "one"}, {"question": "two"}]}
    (tmp_path / "xquad" / "xquad.en.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    scifact = tmp_path / "scifact"
    (scifact / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "claim"}) + "\n")
    (scifact / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "title": name, "text": "body"}) + "\n" for name in ("x", "y"))
    )
    (scifact / "bm25.test.top100.trec").write_text("1 Q0 x 1 9.5 run\n1 Q0 y 21 1.5 run\n")
    assert load_pairs("stsb", tmp_path) == [("a, b", "c")]
    assert load_pairs("qnli", tmp_path) == [("Who?", 'A "quote.')]
    assert load_pairs("xquad", tmp_path) == [("one", "text"), ("two", "text")]
    assert load_pairs("scifact", tmp_path) == [("claim", "x body")]
    assert scifact_candidates(tmp_path, depth=100) == {"1": ["x", "y"]}


def test_a_sample_is_seeded_and_keeps_the_order(tmp_path: Path) -> None:
    (tmp_path / "stsb-en").mkdir()
    (tmp_path / "stsb-en" / "stsb-en-test.csv").write_text("".join(f"{n},x,1\n" for n in range(100)))
    sample = load_pairs("stsb", tmp_path, 10)
    assert sample == load_pairs("stsb", tmp_path, 10)
    assert [int(first) for first, _ in sample] == sorted(int(first) for first, _ in sample)
    assert len(sample) == 10


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"stsb-en-test\.csv"):
        load_pairs("stsb", tmp_path)
    with pytest.raises(SystemExit, match="--data DIR is needed"):
        load_pairs("stsb", None)
    with pytest.raises(SystemExit, match="known are builtin"):
        load_pairs("nope", tmp_path)


def test_a_line_without_two_texts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\nonly one\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"pairs\.tsv:2"):
        read_pairs(path)
