"""The training stages: short texts first, then passages; each a list of examples with the teacher's logits."""

from __future__ import annotations

import logging
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import data, splits
from .teacher import Band, Blend, Embedder, Pool, fit_blend, rank_bands

log = logging.getLogger(__name__)
GOLD = 3.0  # the least logit of a text that a person called relevant
CHUNK_WORDS = 75
CHUNKED_ARTICLES = 2600


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its texts and the logit that the model should give each of them."""

    query: str
    texts: tuple[str, ...]
    logits: tuple[float, ...]  # one per text; sigmoid gives the target probability


def to_logit(probability: float, margin: float = 0.03) -> float:
    """Return the logit of a probability that is first moved into [margin, 1 - margin]."""
    p = min(max(probability, margin), 1.0 - margin)
    return math.log(p / (1.0 - p))


def pair_example(pair: data.ScoredPair) -> Example:
    """Return a one-text example."""
    return Example(pair.first, (pair.second,), (to_logit(pair.target),))


def sentences(text: str) -> list[str]:
    """Split an abstract into sentences of at least five words."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
    return [part.strip() for part in parts if len(part.split()) >= 5]


def chunk(article: data.Article, rng: random.Random) -> tuple[str, bool]:
    """Return about 75 words of an article and whether they are its opening (title included)."""
    parts = sentences(article.text) or [article.text]
    opening = rng.random() < 0.5
    start = 0 if opening else rng.randrange(max(1, len(parts) - 2))
    words = article.title.split() if opening else []
    for part in parts[start:]:
        words += part.split()
        if len(words) >= CHUNK_WORDS:
            break
    return " ".join(words[: CHUNK_WORDS + 25]), opening


def sts_pairs(root: Path) -> list[Example]:
    """Return the STS-B training pairs; the second half of them with the two texts exchanged."""
    pairs = data.read_sts(root / "stsb-en" / "stsb-en-train.csv")
    half = len(pairs) // 2
    flipped = [data.ScoredPair(p.second, p.first, p.target) for p in pairs[half:]]
    return [pair_example(pair) for pair in pairs[:half] + flipped]


class Builder:
    """Reads the data once and makes the parts that the stages are put together from."""

    def __init__(self, root: Path, cache: Path | None, seed: int, size: float) -> None:
        """`size` is the fraction of each part that is kept."""
        self.root, self.size = root, size
        self.rng, self.draws = random.Random(seed), np.random.default_rng(seed)
        self.embed = Embedder(cache)
        scifact = root / "scifact"
        self.corpus = data.read_corpus(scifact / "corpus.jsonl")
        self.queries = data.read_queries(scifact / "queries.jsonl")
        self.qrels = data.read_qrels(scifact / "qrels" / "train.tsv")
        self.claims, _ = splits.split_claims(self.queries, self.qrels, data.read_qrels(scifact / "qrels" / "test.tsv"))
        self.qnli, self.held = splits.split_qnli(data.read_qnli(root / "qnli" / "dev.tsv"))
        self.articles = list(self.corpus.values())
        self.pool = Pool([a.full for a in self.articles], self.embed)
        self.blend = self._fit()

    def _fit(self) -> Blend:
        """Fit the teacher on the training claims: relevant abstracts against each claim's 30 nearest."""
        cosine, bm25 = self.pool.features([self.queries[k] for k in self.claims])
        index = {a.key: i for i, a in enumerate(self.articles)}
        columns: list[tuple[int, int, bool]] = []
        for row, key in enumerate(self.claims):
            gold = {index[k] for k in self.qrels[key]}
            near = np.argsort(-(cosine[row] + bm25[row]))[:30]
            columns += [(row, int(i), int(i) in gold) for i in {*near.tolist(), *gold}]
        r, c, y = (np.array(v) for v in zip(*columns, strict=True))
        blend = fit_blend(cosine[r, c], bm25[r, c], y.astype(np.float32))
        log.info("teacher %s", blend)
        return blend

    def _some(self, count: int) -> int:
        return max(1, int(count * self.size))

    def _lists(
        self, queries: Sequence[str], gold: Sequence[set[int]], pool: Pool, bands: Sequence[Band], cap: float
    ) -> list[Example]:
        """Make one list per query: its gold texts (one drawn), then candidates by rank band, capped at `cap`."""
        scores = self.blend(*pool.features(queries))
        examples: list[Example] = []
        for row, (query, known) in enumerate(zip(queries, gold, strict=True)):
            first = [int(self.draws.choice(sorted(known)))] if known else []
            others = rank_bands(scores[row], bands, known, self.draws)
            logits = [max(GOLD, float(scores[row, i])) for i in first]
            logits += [min(cap, float(scores[row, i])) for i in others]
            texts = [pool.texts[i] for i in first + others]
            examples.append(Example(query, tuple(texts), tuple(np.clip(logits, -6.0, 6.0).tolist())))
        return examples

    def qnli_pairs(self) -> list[Example]:
        """QNLI training rows as labelled pairs."""
        return [pair_example(row) for row in self.qnli]

    def qnli_lists(self) -> list[Example]:
        """Answered QNLI questions, each against the sentences nearest to it."""
        rows = [row for row in self.qnli if row.target > 0.5]
        rows = self.rng.sample(rows, self._some(len(rows)))
        pool = Pool(sorted({row.second for row in self.qnli}), self.embed)
        index = {text: i for i, text in enumerate(pool.texts)}
        gold = [{index[row.second]} for row in rows]
        return self._lists([r.first for r in rows], gold, pool, [(0, 8, 2), (8, 60, 1), (60, 3000, 1)], -1.0)

    def sentence_lists(self, share: float) -> list[Example]:
        """A sentence of each of `share` of the abstracts, against near and far sentences of others."""
        texts = [self.rng.choice(parts) for a in self.articles if (parts := sentences(a.text))]
        texts = sorted({t for t in texts if len(t.split()) <= 45})
        pool = Pool(texts, self.embed)
        rows = self.rng.sample(range(len(texts)), self._some(int(share * len(texts))))
        bands = [(1, 4, 2), (4, 40, 2), (40, 1000, 1), (1000, len(texts), 1)]
        nothing: list[set[int]] = [set()] * len(rows)
        return self._lists([texts[i] for i in rows], nothing, pool, bands, 6.0)

    def chunk_lists(self) -> list[Example]:
        """A title or a sentence of an abstract, against 75-word pieces of abstracts that do not hold it."""
        articles = self.rng.sample(self.articles, min(CHUNKED_ARTICLES, len(self.articles)))
        pieces = [chunk(article, self.rng) for article in articles]
        pool = Pool([text for text, _ in pieces], self.embed)
        queries: list[str] = []
        gold: list[set[int]] = []
        for i in self.rng.sample(range(len(pieces)), self._some(len(pieces))):
            text, opening = pieces[i]
            absent = [s for s in sentences(articles[i].text) if s not in text and len(s.split()) <= 40]
            if not opening and (self.rng.random() < 0.5 or not absent):
                queries.append(articles[i].title)
            elif absent:
                queries.append(self.rng.choice(absent[-4:]))
            else:
                continue
            gold.append({i})
        bands = [(0, 4, 1), (2, 30, 1), (30, 300, 1), (300, 5000, 1)]
        return self._lists(queries, gold, pool, bands, 3.0)

    def claim_lists(self) -> list[Example]:
        """Training claims against whole abstracts."""
        index = {a.key: i for i, a in enumerate(self.articles)}
        gold = [{index[k] for k in self.qrels[key]} for key in self.claims]
        bands = [(0, 5, 1), (3, 30, 1), (30, 300, 1)]
        return self._lists([self.queries[k] for k in self.claims], gold, self.pool, bands, 1.5)

    def question_lists(self) -> list[Example]:
        """XQuAD questions (English) against whole paragraphs."""
        questions = splits.clean_questions(data.read_xquad(self.root / "xquad" / "xquad.en.json"), self.held)
        pool = Pool(sorted({q.paragraph for q in questions}), self.embed)
        index = {text: i for i, text in enumerate(pool.texts)}
        questions = self.rng.sample(questions, self._some(len(questions)))
        gold = [{index[q.paragraph]} for q in questions]
        return self._lists([q.text for q in questions], gold, pool, [(0, 5, 2), (5, 100, 1)], -1.0)


def build_stage(stage: str, root: Path, cache: Path | None, seed: int, size: float) -> list[Example]:
    """Return the examples of `stage`: "sts", "sentences" (short texts) or "passages" (with some of the short ones).

    `size` is the fraction that is kept of the parts that are drawn.
    """
    if stage == "sts":
        return sts_pairs(root)
    builder = Builder(root, cache, seed, size)
    passages = stage == "passages"
    parts = {"sts": sts_pairs(root), "qnli": builder.qnli_pairs(), "qnli lists": builder.qnli_lists()}
    parts["sentence lists"] = builder.sentence_lists(share=1 / 3 if passages else 1.0)
    if passages:
        parts["sts"], parts["qnli"] = parts["sts"][::2], parts["qnli"][::2]
        parts |= {"chunks": builder.chunk_lists(), "claims": builder.claim_lists()}
        parts["questions"] = builder.question_lists()
    for name, part in parts.items():
        log.info("%s: %d examples, %d pairs", name, len(part), sum(len(e.texts) for e in part))
    return [example for part in parts.values() for example in part]
