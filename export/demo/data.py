"""Readers of the public data sets; files in, plain values out. Nothing here draws or filters."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and what a person said about them."""

    first: str
    second: str
    target: float  # 0..1: STS-B score / 5, or 1 where a sentence answers the question


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the paragraph that answers it."""

    text: str
    paragraph: str


@dataclass(frozen=True, slots=True)
class Article:
    """One abstract of the SciFact corpus."""

    key: str
    title: str
    text: str

    @property
    def full(self) -> str:
        """Title and abstract, joined as the BEIR benchmark does."""
        return f"{self.title} {self.text}".strip()


def read_sts(path: Path) -> list[ScoredPair]:
    """Read `sentence1,sentence2,score` rows (no header, score 0..5)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [ScoredPair(a, b, float(score) / 5.0) for a, b, score in csv.reader(file)]


def read_qnli(path: Path) -> list[ScoredPair]:
    """Read the GLUE file with columns index, question, sentence, label (unquoted TSV)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [ScoredPair(r["question"], r["sentence"], float(r["label"] == "entailment")) for r in rows]


def read_xquad(path: Path) -> list[Question]:
    """Read every question of a SQuAD-style JSON file with its paragraph."""
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [Question(qa["question"], p["context"]) for p in paragraphs for qa in p["qas"]]


def read_corpus(path: Path) -> dict[str, Article]:
    """Read a BEIR corpus.jsonl; keys in file order."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: Article(row["_id"], row["title"], row["text"]) for row in rows}


def read_queries(path: Path) -> dict[str, str]:
    """Read a BEIR queries.jsonl: query key -> text, all splits."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: row["text"] for row in rows}


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read a BEIR qrels TSV (one header line): query key -> article key -> grade."""
    qrels: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, article, grade = line.split("\t")
        qrels.setdefault(query, {})[article] = int(grade)
    return qrels


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run: query key -> article key -> score."""
    run: dict[str, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, article, _, score, _ = line.split()
        run.setdefault(query, {})[article] = float(score)
    return run
