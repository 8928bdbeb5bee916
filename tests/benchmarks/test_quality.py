"""The benchmark of quality: metrics known by hand, who is compared with whom, and scorers on real models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.judged import Judged, bm25_order, qnli, scifact, stsb
from benchmarks.quality import ORIGINAL, reference_of, rows_of
from benchmarks.scorers import VariantScorer, bi_encoder, cosines, original
from pairwire.v1 import manifest_pb2
from tests import checkpoints


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("stsb-en", "qnli", "scifact/qrels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stsb-en" / "stsb-en-test.csv").write_text("a,b,1\nc,d,2\ne,f,5\n")
    (tmp_path / "qnli" / "dev.tsv").write_text(
        "index\tquestion\tsentence\tlabel\n0\tq\ts\tentailment\n1\tr\tt\tnot_entailment\n"
    )
    folder = tmp_path / "scifact"
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": n, "text": f"claim {n}"}) + "\n" for n in "12"))
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "title": name, "text": "body"}) + "\n" for name in "xyz")
    )
    (folder / "bm25.test.top100.trec").write_text(
        "".join(f"{q} Q0 {d} {r} 1 run\n" for q in "12" for r, d in enumerate("xyz", 1))
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tx\t1\n2\tz\t1\n")
    return tmp_path


def test_ranking_is_judged_by_the_scores_order(data: Path) -> None:
    both = scifact(data, depth=3)
    assert both.pairs[0] == ("claim 1", "x body")
    assert both.metrics(bm25_order(both))["mrr_at_10"] == pytest.approx((1 + 1 / 3) / 2)
    perfect = np.array([3, 2, 1, 1, 2, 3], np.float32)
    assert both.metrics(perfect) == {"ndcg_at_10": pytest.approx(1), "mrr_at_10": pytest.approx(1)}
    one = scifact(data, depth=2, queries=1)
    assert len(one.pairs) == 2
    assert one.metrics(bm25_order(one))["ndcg_at_10"] == pytest.approx(1)


def test_samples_keep_pairs_and_judgements_together(data: Path) -> None:
    assert stsb(data).metrics(np.array([0.1, 0.2, 0.3], np.float32)) == {"spearman": pytest.approx(1)}
    few = stsb(data, limit=2)
    rising = np.array([{"a": 1.0, "c": 2.0, "e": 5.0}[first] for first, _ in few.pairs], np.float32)
    assert few.metrics(rising) == {"spearman": pytest.approx(1)}
    assert qnli(data).metrics(np.array([0.6, 0.4], np.float32)) == {"accuracy": 1}
    assert qnli(data).metrics(np.array([0.6, 0.7], np.float32)) == {"accuracy": 0.5}


def test_every_system_is_compared_with_the_reference() -> None:
    judged = Judged("scifact, BM25 top 2", [("a", "b")] * 2, lambda scores: {"ndcg_at_10": float(scores[0])})
    scores = {ORIGINAL: [np.array([0.5, 0.2], np.float32)], "cpu-int8": [np.array([0.4, 0.1], np.float32)]}
    bm25, reference, int8 = rows_of([judged], scores, ORIGINAL)
    assert bm25["system"] == "BM25"
    assert "difference" not in reference
    assert int8["difference"] == pytest.approx(-0.1)
    assert int8["ndcg_relative"] == "-20.00%"
    assert int8["max_abs_diff"] == pytest.approx(0.1)


def test_the_original_is_the_reference_and_fp32_where_there_is_none() -> None:
    variants = [
        manifest_pb2.Variant(name="cpu-int8", precision="int8"),
        manifest_pb2.Variant(name="b", precision="fp32"),
    ]
    manifest = manifest_pb2.ModelManifest(variants=variants)
    assert reference_of([ORIGINAL, "cpu-int8", "b"], manifest) == ORIGINAL
    assert reference_of(["cpu-int8", "b"], manifest) == "b"
    assert reference_of(["cpu-int8"], manifest) is None


def test_a_model_of_several_labels_is_refused() -> None:
    manifest = manifest_pb2.ModelManifest(kind=manifest_pb2.MODEL_KIND_CROSS_ENCODER, labels=["a", "b"])
    with pytest.raises(SystemExit, match="one label"):
        bi_encoder(manifest)


def test_cosines_embed_each_text_once() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return np.array([[len(text), 1] for text in texts], np.float32)

    found = cosines([("a", "a"), ("a", "bbb")], embed)
    assert asked == [["a", "bbb"]]
    np.testing.assert_allclose(found, [1, 4 / np.sqrt(20)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["cross_encoder", "bi_encoder"])
def test_package_and_original_score_alike(kind: str, request: pytest.FixtureRequest) -> None:
    package, checkpoint = (request.getfixturevalue(f"{kind}_{what}") for what in ("package", "checkpoint"))
    embeds = kind == "bi_encoder"
    scorer = VariantScorer(package, "cpu-fp32", embeds=embeds, max_length=None)
    found = scorer.score(checkpoints.PAIRS)
    scorer.close()
    expected = original(checkpoint, embeds=embeds, max_length=None)(checkpoints.PAIRS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3
