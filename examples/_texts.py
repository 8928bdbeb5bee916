"""The texts of the examples: built in, or of public data sets below one folder (``--data DIR``).

scifact/{corpus,queries}.jsonl, scifact/qrels/test.tsv     claims, abstracts, which abstracts matter to which claim
stsb-en/stsb-en-test.csv                                   sentence pairs and how alike people found them
qnli/dev.tsv                                               questions, sentences, whether the sentence answers
xquad/xquad.en.json                                        questions, of which only the text is used here
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pairwire.export.demo.data import read_corpus, read_qnli, read_qrels, read_queries, read_sts, read_xquad

_SENTENCE_END = re.compile(r"(?<=[.?!]) +(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Collection:
    """Something to search: everything by its key."""

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    """Query -> document -> grade, of at least 1."""

    def first(self, queries: int) -> Collection:
        """The same documents with the first N queries."""
        kept = dict(list(self.queries.items())[:queries])
        return Collection(self.documents, kept, {query: self.relevant[query] for query in kept})


def collection(data: Path | None) -> Collection:
    """SciFact's abstracts and test claims, or built-in passages and questions."""
    return _built_in() if data is None else _scifact(data / "scifact")


def sentences(data: Path | None, limit: int) -> list[str]:
    """Distinct sentences, at most ``limit`` of them, drawn with a fixed seed where there are more."""
    texts = _built_in_sentences() if data is None else _data_sentences(data)
    distinct = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    return distinct if len(distinct) <= limit else random.Random(0).sample(distinct, limit)


def _scifact(folder: Path) -> Collection:
    texts = read_queries(folder / "queries.jsonl")
    relevant = read_qrels(folder / "qrels" / "test.tsv")
    documents = {key: article.full for key, article in read_corpus(folder / "corpus.jsonl").items()}
    return Collection(documents, {query: texts[query] for query in relevant}, relevant)


def _built_in() -> Collection:
    """Each question has one passage that answers it, and one that only has the same subject."""
    topics = _english_topics()
    documents = {f"answer-{at}": topic["passage"] for at, topic in enumerate(topics)}
    documents |= {f"near-{at}": topic["near"] for at, topic in enumerate(topics)}
    queries = {f"question-{at}": topic["query"] for at, topic in enumerate(topics)}
    return Collection(documents, queries, {f"question-{at}": {f"answer-{at}": 1} for at in range(len(topics))})


def _english_topics() -> list[dict[str, str]]:
    """The exporter's own texts, without the other languages and without the query "ok"."""
    lines = (files("pairwire.export") / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    topics: list[dict[str, str]] = [json.loads(line) for line in lines]
    return [topic for topic in topics if topic["passage"].isascii() and " " in topic["query"]]


def _demo_texts() -> list[str]:
    texts = json.loads((files("pairwire.export.demo") / "texts.json").read_text(encoding="utf-8"))
    return [text for entry in texts["queries"] for text in (entry["query"], *entry["documents"])]


def _built_in_sentences() -> list[str]:
    found = _built_in()
    return [
        sentence
        for text in (*found.documents.values(), *found.queries.values(), *_demo_texts())
        for sentence in _SENTENCE_END.split(text)
    ]


def _data_sentences(data: Path) -> list[str]:
    pairs = read_sts(data / "stsb-en" / "stsb-en-test.csv") + read_qnli(data / "qnli" / "dev.tsv")
    questions = [question.text for question in read_xquad(data / "xquad" / "xquad.en.json")]
    claims = read_queries(data / "scifact" / "queries.jsonl").values()
    return [text for pair in pairs for text in (pair.first, pair.second)] + questions + list(claims)
