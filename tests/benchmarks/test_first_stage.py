"""The benchmark of first stages: which candidates a claim gets, and what the curve says of scores known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ir_measures import Qrel

from benchmarks.first_stage import Claim, Scored, curve, load_claims

CLAIM = Claim("7", "a claim", tuple("abcdefghijkl"), tuple("ABCDEFGHIJKL"))
JUDGED = [Qrel("7", "k", 1), Qrel("8", "a", 1)]


def scored(relevant_is_near: bool) -> dict[str, Scored]:
    """The cross-encoder puts k first and then goes by the alphabet; the first stage puts k second or eleventh."""
    scores = np.arange(12, 0, -1, dtype=np.float32)
    scores[10] = 20
    similarities = np.arange(12, 0, -1, dtype=np.float32)
    if relevant_is_near:
        similarities[10] = 11.5
    return {"7": Scored(scores, similarities)}


def test_what_the_first_stage_keeps_is_ranked_by_the_cross_encoder() -> None:
    near = scored(relevant_is_near=True)["7"]
    assert near.ranking(12) == [10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert near.ranking(3) == [10, 0, 1]


def test_the_curve_tells_what_is_lost_and_how_much_of_the_top_is_let_through() -> None:
    seconds = {"all": [4.0, 8.0], "warm 5": [1.0, 1.0], "cold 5": [2.0, 4.0]}
    rows = curve([CLAIM], scored(relevant_is_near=False), [5, 11], JUDGED, seconds)
    named = {(row["system"], row.get("keep")): row for row in rows}
    assert list(named) == [
        ("BM25 alone", None),
        ("first stage alone", None),
        ("both", 5),
        ("both", 11),
        ("rerank all", 12),
    ]
    five, eleven, whole = named["both", 5], named["both", 11], named["rerank all", 12]
    assert (whole["ndcg_at_10"], whole["loss"]) == (1, 0)
    assert (five["ndcg_at_10"], five["loss"], five["top10_kept"]) == (0, 1, 0.5)
    assert (eleven["ndcg_at_10"], eleven["loss"], eleven["top10_kept"]) == (1, 0, 1)
    assert (five["warm_s"], five["warm_ratio"], five["cold_s"], five["cold_ratio"]) == (1, 0.1875, 3, 0.5)
    assert (whole["warm_s"], whole["warm_ratio"]) == (6, 1)
    assert "warm_s" not in eleven
    assert named["first stage alone", None]["ndcg_at_10"] == 0


def test_a_first_stage_that_finds_it_loses_nothing() -> None:
    rows = curve([CLAIM], scored(relevant_is_near=True), [2], JUDGED, {})
    assert [row["ndcg_at_10"] for row in rows if row["system"] == "both"] == [1]
    assert [row["ndcg_at_10"] for row in rows if row["system"] == "first stage alone"] == [
        pytest.approx(0.6309, abs=1e-4)
    ]


def test_candidates_are_the_best_of_the_whole_corpus_and_claims_are_judged_ones(tmp_path: Path) -> None:
    home = tmp_path / "scifact"
    (home / "qrels").mkdir(parents=True)
    texts = {"1": "cells divide", "2": "bread rises with yeast", "3": "yeast cells divide fast", "4": "dogs run"}
    corpus = [{"_id": name, "title": "", "text": text} for name, text in texts.items()]
    queries = [{"_id": name, "text": "yeast cells"} for name in ("8", "9")]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n9\t3\t1\n")
    (claim,) = load_claims(tmp_path, candidates=3, limit=24)
    assert (claim.id, claim.text, claim.ids[0]) == ("9", "yeast cells", "3")
    assert set(claim.ids) == {"1", "2", "3"}
    assert claim.documents == tuple(texts[name] for name in claim.ids)
