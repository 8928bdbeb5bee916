"""Data sets that people have judged: pairs, and what a model's scores of them are worth.

scifact   nDCG@10 and MRR@10 of BM25's best abstracts (test claims), reordered by score; by ir_measures
stsb      Spearman correlation with people's scores, test part
qnli      accuracy of score > 0.5 on the development part
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
import numpy.typing as npt
from ir_measures import RR, Qrel, ScoredDoc, nDCG
from scipy.stats import spearmanr

from .datasets import Pair, load_pairs, scifact_candidates, scifact_texts

NAMES = ("scifact", "stsb", "qnli")
Scores = npt.NDArray[np.float32]
"""[pairs]"""


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs of one data set and its metrics."""

    name: str
    pairs: Sequence[Pair]
    metrics: Callable[[Scores], dict[str, float]]
    """Of scores [pairs]: ``ndcg_at_10`` and ``mrr_at_10``, ``spearman``, or ``accuracy``."""


def scifact(data: Path, *, depth: int, queries: int = 0) -> Judged:
    """The ``depth`` best candidates of BM25 for the first ``queries`` claims (0: all)."""
    texts, corpus = scifact_texts(data)
    chosen = list(scifact_candidates(data, depth).items())[: queries or None]
    found = [(query, document) for query, documents in chosen for document in documents]
    asked = {query for query, _ in chosen}
    qrels = [qrel for qrel in scifact_judgements(data) if qrel.query_id in asked]

    def metrics(scores: Scores) -> dict[str, float]:
        run = [ScoredDoc(*ids, float(score)) for ids, score in zip(found, scores, strict=True)]
        values = ir_measures.calc_aggregate([nDCG @ 10, RR @ 10], qrels, run)
        return {"ndcg_at_10": values[nDCG @ 10], "mrr_at_10": values[RR @ 10]}

    pairs = [(texts[query], corpus[document]) for query, document in found]
    return Judged(f"scifact, BM25 top {depth}", pairs, metrics)


def scifact_judgements(data: Path) -> list[Qrel]:
    """Which documents answer which of the test claims."""
    with (data / "scifact" / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Qrel(row["query-id"], row["corpus-id"], int(row["score"])) for row in csv.DictReader(file, delimiter="\t")
        ]


def bm25_order(judged: Judged) -> Scores:
    """Scores that leave SciFact's candidates in BM25's own order."""
    return -np.arange(len(judged.pairs), dtype=np.float32)


def stsb(data: Path, *, limit: int = 0) -> Judged:
    """Test part; a seeded sample of ``limit`` pairs where that is given."""
    pairs = load_pairs("stsb", data)
    with (data / "stsb-en" / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
        people = np.array([float(row[2]) for row in csv.reader(file)])
    kept = _sample(len(pairs), limit)
    return Judged(
        "stsb",
        [pairs[at] for at in kept],
        lambda scores: {"spearman": float(spearmanr(scores, people[kept]).statistic)},
    )


def qnli(data: Path, *, limit: int = 0) -> Judged:
    """Development part; a seeded sample of ``limit`` pairs where that is given."""
    pairs = load_pairs("qnli", data)
    with (data / "qnli" / "dev.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        entailed = np.array([row["label"] == "entailment" for row in rows])
    kept = _sample(len(pairs), limit)
    return Judged(
        "qnli",
        [pairs[at] for at in kept],
        lambda scores: {"accuracy": float(((scores > 0.5) == entailed[kept]).mean())},
    )


def _sample(count: int, limit: int) -> list[int]:
    """Ascending indices; the ones that `load_pairs` takes."""
    if not limit or limit >= count:
        return list(range(count))
    return sorted(random.Random(0).sample(range(count), limit))
