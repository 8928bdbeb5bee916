"""The examples as people run them, on tiny packages: what they print is what the texts and the models imply."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from examples import _texts, cluster, entailment, near_duplicates, retrieve_and_rerank
from examples.retrieve_and_rerank import Run
from pairwire.cli.server_process import ServerProcess
from pairwire.client import Client
from pairwire.export import ExportConfig, export_checkpoint
from tests import checkpoints

pytestmark = pytest.mark.slow

Out = Callable[[], list[str]]

LENGTH = ["--max-length", "64"]
"""Long passages of another scientific subject would only take time."""


@pytest.fixture(scope="module")
def address(cross_encoder_package: Path, bi_encoder_package: Path) -> Iterator[str]:
    packages = [cross_encoder_package, bi_encoder_package]
    with ServerProcess.serve(packages, "--metrics-port=-1", "--warmup-s=0.01") as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        client.wait_until_ready()
        yield client


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    return lambda: capsys.readouterr().out.splitlines()


def ndcg(texts: _texts.Collection, run: Run) -> float:
    """The mean over queries, by its definition; trec_eval, which the example uses, breaks ties of float32 by key."""

    def gain(grades: list[int]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades[:10], start=1))

    found = []
    for query in texts.queries:
        relevant = texts.relevant[query]
        ranked = sorted(
            ((np.float32(scored.score), scored.doc_id) for scored in run if scored.query_id == query), reverse=True
        )
        gained = gain([relevant.get(key, 0) for _, key in ranked])
        found.append(gained / gain(sorted(relevant.values(), reverse=True)))
    return float(np.mean(found))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """What the search finds, by order: the index is approximate, and another one each time it is built."""
    found: dict[str, Run] = {}
    report = retrieve_and_rerank.report

    def reported(texts: _texts.Collection, runs: dict[str, Run]) -> None:
        found.update(runs)
        report(texts, runs)

    monkeypatch.setattr(retrieve_and_rerank, "report", reported)
    return found


def check_search(client: Client, texts: _texts.Collection, runs: dict[str, Run], lines: list[str], depth: int) -> None:
    """Both stages rank by the models' own numbers, and what is printed is what they are worth."""
    check_retrieved(client, texts, runs["by vectors"], depth)
    check_reranked(client, texts, runs["by vectors"], runs["reranked"])
    worth = {order: ndcg(texts, run) for order, run in runs.items()}
    at = lines.index("order         nDCG@10")
    assert lines[at + 1 : at + 3] == [f"{order:13}{worth[order]:8.4f}" for order in ("by vectors", "reranked")]
    better = "by vectors" if worth["by vectors"] >= worth["reranked"] else "reranked"
    by = abs(worth["by vectors"] - worth["reranked"])
    assert f"Better on these {len(texts.queries)} queries: {better}, by {by:.4f}." in lines
    assert {line[:13].strip() for line in lines} >= {"embed corpus", "build index", "search", "rerank"}


def check_retrieved(client: Client, texts: _texts.Collection, run: Run, depth: int) -> None:
    """Scores are cosines, and nearly all of the nearest are found."""
    keys = list(texts.documents)
    vectors = client.embed(texts.documents.values()).embeddings
    nearest = 0
    for query, text in texts.queries.items():
        cosines = vectors @ client.embed([text]).embeddings[0]
        found = {scored.doc_id: scored.score for scored in run if scored.query_id == query}
        assert len(found) == depth
        assert list(found.values()) == sorted(found.values(), reverse=True)
        np.testing.assert_allclose(list(found.values()), [cosines[keys.index(key)] for key in found], atol=1e-5)
        nearest += len(found.keys() & {keys[at] for at in np.argsort(-cosines)[:depth]})
    assert nearest >= 0.9 * depth * len(texts.queries)


def check_reranked(client: Client, texts: _texts.Collection, candidates: Run, run: Run) -> None:
    for query, text in texts.queries.items():
        found = {scored.doc_id: scored.score for scored in run if scored.query_id == query}
        assert found.keys() == {scored.doc_id for scored in candidates if scored.query_id == query}
        assert list(found.values()) == sorted(found.values(), reverse=True)
        scores = client.score([(text, texts.documents[key]) for key in found], max_length=64).scores
        np.testing.assert_allclose(list(found.values()), scores, atol=1e-5)


def test_search_tells_what_each_stage_is_worth(address: str, client: Client, out: Out, runs: dict[str, Run]) -> None:
    texts = _texts.collection(None).first(6)
    retrieve_and_rerank.main(["--address", address, "--queries", "6", "--depth", "20", *LENGTH])
    check_search(client, texts, runs, out(), depth=20)


def test_search_reads_a_collection_of_the_beir_layout(
    address: str, client: Client, out: Out, runs: dict[str, Run], tmp_path: Path
) -> None:
    texts = _texts.Collection(
        documents={str(at): text for at, text in enumerate(checkpoints.TEXTS)},
        queries={"q7": "a dog in the park", "q3": "baking bread"},
        relevant={"q7": {"1": 1, "5": 2}, "q3": {"3": 1}},
    )
    write_collection(tmp_path / "scifact", texts)
    retrieve_and_rerank.main(["--address", address, "--data", str(tmp_path), "--depth", "4", *LENGTH])
    lines = out()
    check_search(client, texts, runs, lines, depth=4)
    assert any(line.startswith("search") and line.endswith("2 queries, 8 candidates") for line in lines)
    assert any(line.startswith("by vectors") and " * " in line for line in lines[lines.index("? a dog in the park") :])


def write_collection(folder: Path, texts: _texts.Collection) -> None:
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": key, "title": "", "text": text} for key, text in texts.documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    queries = [{"_id": key, "text": text} for key, text in {**texts.queries, "unused": "of another split"}.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    rows = [f"{query}\t{key}\t{grade}" for query, found in texts.relevant.items() for key, grade in found.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


def test_clusters_hold_every_sentence_once(address: str, out: Out) -> None:
    cluster.main(["--address", address, "--clusters", "4", "--pairs", "50", "--sentences", "120"])
    lines = out()
    sizes = [int(found[1]) for line in lines if (found := re.fullmatch(r"(\d+) sentences", line))]
    assert len(sizes) == 4
    assert sum(sizes) == 120
    assert sizes == sorted(sizes, reverse=True)
    assert lines[0] == f"4 clusters of {sizes[-1]} to {sizes[0]} sentences; the largest:"
    shown = [line[2:] for line in lines if line.startswith("  ")]
    known = {text[:100] for text in _texts.sentences(None, 120)}
    assert len(set(shown)) == len(shown) == sum(min(size, 3) for size in sizes)
    assert set(shown) <= known
    assert lines[-2].startswith("120 sentences: ")
    assert lines[-1].startswith("7,140 pairs at ")  # 120 * 119 / 2


def test_a_cluster_starts_with_what_is_nearest_to_its_centre() -> None:
    angles = np.radians([0.0, 40.0, 2.0, 4.0, 42.0])
    members = cluster.cluster(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 2)
    assert members[0] == [2, 0, 3] or members[0] == [2, 3, 0]
    assert sorted(members[1]) == [1, 4]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (90, "1.5 minutes"), (5400, "1.5 hours"), (285_000, "3.3 days")]
)
def test_a_duration_is_told_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert cluster.duration(seconds) == text


def test_duplicates_are_those_that_the_models_find(address: str, client: Client, out: Out) -> None:
    texts, judged = near_duplicates.built_in()
    vectors = client.embed(texts).embeddings
    cosines = vectors @ vectors.T
    near = {
        (min(at, other), max(at, other))
        for at, row in enumerate(cosines)
        for other in np.argsort(-row)[:4].tolist()
        if other != at
    }
    middle = np.sort([cosines[pair] for pair in near])[len(near) // 2 - 1 :][:2].mean()  # half of them are candidates
    candidates = [pair for pair in sorted(near) if cosines[pair] >= middle]
    assert len(candidates) < len(near)
    scores = dict(zip(candidates, client.score([(texts[a], texts[b]) for a, b in candidates]).scores, strict=True))
    least = float(np.median(list(scores.values())))  # so that some are and some are not
    said = {pair for pair, score in scores.items() if score >= least}
    arguments = ["--neighbours", "3", "--min-cosine", repr(float(middle)), "--min-score", repr(least)]
    near_duplicates.main(["--address", address, *arguments])
    lines = out()
    assert lines[0] == f"17 sentences, {len(candidates)} candidates, {len(said)} duplicates; the first:"
    best = max(scores, key=lambda pair: scores[pair])
    assert lines[2].split()[:2] == [f"{scores[best]:.2f}", f"{cosines[best]:.2f}"]
    assert lines[2].endswith(f"  {texts[best[0]][:60]}  |  {texts[best[1]][:60]}")
    right = sum(judged[pair] for pair in said)
    assert f"precision {right / len(said):.3f}, recall {right / 7:.3f} at score {least:g}" in lines
    truth = {pair: judged[pair] for pair in candidates}
    assert lines[-2] == f"  cosine {average_precision(truth, {pair: cosines[pair] for pair in candidates}):.3f}"
    assert lines[-1] == f"  cross-encoder {average_precision(truth, scores):.3f}"


def test_where_nothing_is_near_the_flag_is_named(address: str) -> None:
    with pytest.raises(SystemExit, match=r"^--min-cosine 1\.1: no two sentences are that near; lower it$"):
        near_duplicates.main(["--address", address, "--min-cosine", "1.1"])


def test_what_people_have_not_judged_counts_for_nothing(out: Out) -> None:
    found = [near_duplicates.Found(*pair, cosine=0.9, score=0.8) for pair in ((0, 1), (0, 2), (1, 2))]
    near_duplicates.compare(found, {(0, 1): True, (1, 2): False, (3, 4): True}, min_score=0.5)
    assert out()[1:3] == [
        "People judged 3 pairs: 2 duplicates, 1 of them candidates.",
        "precision 0.500, recall 0.500 at score 0.5",
    ]
    near_duplicates.compare(found[1:2], {(0, 1): True}, min_score=0.5)
    assert out()[1:] == [
        "People judged 1 pairs: 1 duplicates, 0 of them candidates.",
        "precision 0.000, recall 0.000 at score 0.5",
    ]


def average_precision(truth: dict[tuple[int, int], bool], values: dict[tuple[int, int], float]) -> float:
    """The precision at each duplicate, from the best pair down, on average."""
    ranked = [truth[pair] for pair in sorted(values, key=lambda pair: -values[pair])]
    return float(np.mean([sum(ranked[: at + 1]) / (at + 1) for at, right in enumerate(ranked) if right]))


def test_people_judge_the_pairs_of_sts(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("b,a,4.0\na,c,3.9\na,a,5.0\n")
    assert near_duplicates.sts(path) == (["b", "a", "c"], {(0, 1): True, (1, 2): False})


def test_one_label_says_yes_or_no(address: str, client: Client, out: Out) -> None:
    scores = client.score(entailment.QUESTIONS).scores
    least = float(np.sort(scores)[2])
    entailment.main(["--address", address, "--min-score", repr(least)])
    lines = out()
    for line, (question, sentence), score in zip(lines, entailment.QUESTIONS, scores, strict=True):
        answer = "yes" if score >= least else "no "
        assert line == f"{score:.3f}  {answer}  {question}  |  {sentence}"
    assert sum("  yes  " in line for line in lines) == 4


def test_accuracy_counts_the_rows_of_qnli(address: str, client: Client, out: Out, tmp_path: Path) -> None:
    pairs = checkpoints.PAIRS
    scores = client.score(pairs).scores
    least = float(np.sort(scores)[3])  # three say yes, three say no, and the file agrees with all but the first
    says = [bool(score >= least) for score in scores]
    labels = ["entailment" if yes != (at == 0) else "not_entailment" for at, yes in enumerate(says)]
    (tmp_path / "qnli").mkdir()
    rows = [f"{at}\t{a}\t{b}\t{label}" for at, ((a, b), label) in enumerate(zip(pairs, labels, strict=True))]
    (tmp_path / "qnli" / "dev.tsv").write_text("\n".join(["index\tquestion\tsentence\tlabel", *rows]) + "\n")
    entailment.main(["--address", address, "--data", str(tmp_path), "--min-score", repr(least)])
    lines = out()
    assert lines[0].startswith("6 pairs of QNLI in ")
    assert lines[1] == "accuracy 0.833; the same answer to everything: 0.667"


@pytest.fixture(scope="module")
def nli_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Of this seed's weights, unlike those of others, each label is the most probable one of some pair.
    checkpoint = checkpoints.save_cross_encoder(tmp_path_factory.mktemp("checkpoint") / "nli", labels=3, seed=2)
    directory = tmp_path_factory.mktemp("package") / "nli"
    config = ExportConfig(tune=False, checkpoint=str(checkpoint), output=directory, precisions=("fp32",))
    export_checkpoint(config)
    return directory


def test_several_labels_say_which_relation(nli_package: Path, out: Out, tmp_path: Path) -> None:
    with ServerProcess.serve([nli_package], "--metrics-port=-1", "--warmup-s=0.01") as server:
        with Client(server.address) as client:
            client.wait_until_ready()
            logits = client.score(entailment.NLI, activation="identity").scores
        entailment.main(["--address", server.address])
        lines = out()
        with pytest.raises(SystemExit, match="this model has contradiction, entailment, neutral"):
            entailment.main(["--address", server.address, "--data", str(tmp_path)])
    assert lines[0].split() == ["contradiction", "entailment", "neutral"]
    for line, row, (premise, hypothesis) in zip(lines[1:], logits, entailment.NLI, strict=True):
        *probabilities, rest = line.split(maxsplit=3)
        np.testing.assert_allclose(np.array(probabilities, float), np.exp(row) / np.exp(row).sum(), atol=6e-4)
        assert rest == f"{lines[0].split()[int(row.argmax())]}: {premise}  =>  {hypothesis}"
    assert len({int(row.argmax()) for row in logits}) == 3


def test_an_example_starts_a_server_of_its_own(
    cross_encoder_package: Path, bi_encoder_package: Path, out: Out, tmp_path: Path
) -> None:
    packages = ["--cross-encoder", str(cross_encoder_package), "--bi-encoder", str(bi_encoder_package)]
    near_duplicates.main([*packages, "--min-cosine", "-1"])
    assert out()[0].startswith("17 sentences, ")
    with pytest.raises(SystemExit, match=r"no model package is there; make one with: pairwire export CHECKPOINT -o "):
        near_duplicates.main([*packages, "--cross-encoder", str(tmp_path)])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit, match="the server could not start"):
        near_duplicates.main([*packages, "--cross-encoder", str(tmp_path)])


def test_what_the_server_refuses_is_told_in_a_sentence(address: str) -> None:
    with pytest.raises(SystemExit, match="max_length"):
        retrieve_and_rerank.main(["--address", address, "--queries", "1", "--max-length", "100000"])


def test_sentences_are_distinct_and_drawn_alike_every_time() -> None:
    everything = _texts.sentences(None, 10_000)
    assert len(set(everything)) == len(everything) > 150
    drawn = _texts.sentences(None, 20)
    assert drawn == _texts.sentences(None, 20)
    assert len(drawn) == 20
    assert set(drawn) < set(everything)
    assert all(len(text.splitlines()) == 1 for text in everything)


def test_built_in_questions_have_an_answer_and_a_near_miss() -> None:
    texts = _texts.collection(None)
    assert texts.queries.keys() == texts.relevant.keys()
    for query, key in itertools.chain.from_iterable(
        ((query, key) for key in found) for query, found in texts.relevant.items()
    ):
        assert texts.documents[key]
        assert texts.documents[f"near-{query.removeprefix('question-')}"] != texts.documents[key]
