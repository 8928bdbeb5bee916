"""Real text pairs from public data sets, read from their original files below one folder (``--data DIR``).

    stsb      stsb-en/stsb-en-test.csv                      sentence, sentence, score           about 22 tokens a pair
    qnli      qnli/dev.tsv                                  question, sentence                  about 50
    xquad     xquad/xquad.en.json                           question, paragraph                 about 180
    scifact   scifact/{corpus,queries}.jsonl + BM25 run     claim, title and abstract           about 300

``builtin`` needs no files: the texts that the exporter checks parity with.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

Pair = tuple[str, str]


def _stsb(data: Path) -> list[Pair]:
    with (data / "stsb-en" / "stsb-en-test.csv").open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in csv.reader(file)]


def _qnli(data: Path) -> list[Pair]:
    with (data / "qnli" / "dev.tsv").open(encoding="utf-8", newline="") as file:
        return [
            (row["question"], row["sentence"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def _xquad(data: Path) -> list[Pair]:
    articles = json.loads((data / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [(question["question"], paragraph["context"]) for paragraph in paragraphs for question in paragraph["qas"]]


def scifact_candidates(data: Path, depth: int) -> dict[str, list[str]]:
    """Query id -> document ids of the BM25 run, best first, at most ``depth``."""
    candidates: dict[str, list[str]] = {}
    for line in (data / "scifact" / "bm25.test.top100.trec").read_text(encoding="utf-8").splitlines():
        query, _, document, rank, *_ = line.split()
        if int(rank) <= depth:
            candidates.setdefault(query, []).append(document)
    return candidates


def scifact_texts(data: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(query id -> claim, document id -> title and abstract)."""

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (data / "scifact" / name).read_text(encoding="utf-8").splitlines()]

    queries = {row["_id"]: row["text"] for row in rows("queries.jsonl")}
    return queries, {row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows("corpus.jsonl")}


def _scifact(data: Path) -> list[Pair]:
    queries, corpus = scifact_texts(data)
    candidates = scifact_candidates(data, depth=20)
    return [(queries[query], corpus[document]) for query, documents in candidates.items() for document in documents]


READERS: dict[str, Callable[[Path], list[Pair]]] = {"stsb": _stsb, "qnli": _qnli, "xquad": _xquad, "scifact": _scifact}


def load_pairs(name: str, data: Path | None, limit: int = 0, seed: int = 0) -> list[Pair]:
    """Pairs of a data set, or a seeded sample of ``limit`` of them in their original order.

    Raises:
        SystemExit: the data set is unknown, or its files are not below ``data``.
    """
    if name == "builtin":
        pairs = _builtin()
    elif name not in READERS:
        raise SystemExit(f"--dataset: {name!r} is unknown; known are builtin, {', '.join(READERS)}")
    elif data is None:
        raise SystemExit(
            f"--data DIR is needed for {name!r}: the folder that holds its files (see benchmarks/datasets.py)"
        )
    else:
        try:
            pairs = READERS[name](data)
        except FileNotFoundError as error:
            raise SystemExit(f"--data {data}: {name!r} needs {error.filename}") from None
    if limit and limit < len(pairs):
        chosen = sorted(random.Random(seed).sample(range(len(pairs)), limit))
        pairs = [pairs[index] for index in chosen]
    return pairs


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a file with two tab-separated texts a line.

    Raises:
        SystemExit: a line without two texts; named by its number.
    """
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise SystemExit(f"{path}:{number}: expected two texts separated by a tab")
        pairs.append((fields[0], fields[1]))
    return pairs


def _builtin() -> list[Pair]:
    from importlib.resources import files

    texts = json.loads((files("pairwire.export.demo") / "texts.json").read_text(encoding="utf-8"))
    return [(entry["query"], document) for entry in texts["queries"] for document in entry["documents"]]
