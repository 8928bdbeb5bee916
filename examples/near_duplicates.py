"""Sentences that say the same: candidates by vectors and an index, the decision by a cross-encoder.

    python -m examples.near_duplicates                                  built-in questions of users, some asked twice
    python -m examples.near_duplicates --data DIR --min-score 0.8       STS-B's test sentences, judged by people

Only each sentence's --neighbours nearest with a cosine of at least --min-cosine are read by the cross-encoder; a pair
is a duplicate where its score is at least --min-score. Prints the pairs, and, as people's opinion is known, precision
and recall, with the average precision of both models' scores: where the cosine's is higher, do without a cross-encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score
from usearch.index import Index

from pairwire.client import Client
from pairwire.export.demo.data import read_sts

from . import _serving

GROUPS = (
    ("How do I reset my password?", "I forgot my password, how can I set a new one?"),
    ("Where can I see my invoices?", "Where do I find my old invoices?", "How can I download an invoice?"),
    ("How do I cancel my subscription?", "I want to end my subscription, what do I have to do?"),
    ("Can I pay by bank transfer?", "Is it possible to pay with a bank transfer?"),
    ("My parcel has not arrived yet.", "The package still has not been delivered."),
    ("How long does delivery take?",),
    ("Can I change the delivery address of an order?",),
    ("Do you ship to Norway?",),
    ("How do I change my email address?",),
    ("Can I pay in instalments?",),
    ("The app crashes when I open it.",),
)
"""The built-in sentences: those of one group say the same."""
DUPLICATE = 0.8
"""People's score, from 0 to 1, from which on an STS-B pair counts as a duplicate: 4 of 5, unlike in details only."""
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Found:
    """A pair of sentences, by position, and what both models say."""

    first: int
    second: int
    cosine: float
    score: float


Judged = dict[tuple[int, int], bool]
"""Positions of a pair, ascending -> whether people see a duplicate."""


def main(argv: Sequence[str] | None = None) -> None:
    """Finds the duplicates, and compares with what people say."""
    parser = _serving.arguments("near_duplicates", __doc__)
    parser.add_argument("--neighbours", type=int, default=5, help="candidates of a sentence (default 5)")
    parser.add_argument("--min-cosine", type=float, default=0.5, help="of a candidate (default 0.5)")
    parser.add_argument("--min-score", type=float, default=0.5, help="of a duplicate (default 0.5)")
    args = parser.parse_args(argv)
    texts, judged = built_in() if args.data is None else sts(args.data / "stsb-en" / "stsb-en-test.csv")
    with _serving.connected(args) as client:
        candidates = nearest(client, texts, args.neighbours, args.min_cosine)
        if not candidates:
            raise SystemExit(f"--min-cosine {args.min_cosine:g}: no two sentences are that near; lower it")
        found = decide(client, texts, candidates)
    show(texts, found, args.min_score)
    compare(found, judged, args.min_score)


def nearest(client: Client, texts: Sequence[str], neighbours: int, min_cosine: float) -> dict[tuple[int, int], float]:
    """Cosines of the pairs of which one is among the nearest of the other."""
    vectors = client.embed(texts, timeout_s=600).embeddings
    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
    index.add(np.arange(len(vectors)), vectors)
    cosines = {}
    for position, vector in enumerate(vectors):
        found = index.search(vector, neighbours + 1)  # itself is among them
        for other, distance in zip(found.keys.tolist(), found.distances.tolist(), strict=True):
            if other != position and 1.0 - distance >= min_cosine:
                cosines[min(position, other), max(position, other)] = 1.0 - distance
    return cosines


def decide(client: Client, texts: Sequence[str], candidates: dict[tuple[int, int], float]) -> list[Found]:
    """The candidates with the cross-encoder's scores, best first."""
    scores = client.score([(texts[a], texts[b]) for a, b in candidates], timeout_s=600).scores
    found = [
        Found(a, b, cosine, float(score)) for ((a, b), cosine), score in zip(candidates.items(), scores, strict=True)
    ]
    return sorted(found, key=lambda pair: -pair.score)


def show(texts: Sequence[str], found: Sequence[Found], min_score: float) -> None:
    """How many pairs are candidates and duplicates, and the best of them."""
    said = [pair for pair in found if pair.score >= min_score]
    print(f"{len(texts):,} sentences, {len(found):,} candidates, {len(said):,} duplicates; the first:\nscore cosine")
    for pair in said[:SHOWN]:
        print(f"{pair.score:5.2f} {pair.cosine:6.2f}  {texts[pair.first][:60]}  |  {texts[pair.second][:60]}")


def compare(found: Sequence[Found], judged: Judged, min_score: float) -> None:
    """What people say of the candidates; those that they have not judged count for nothing."""
    known = [(pair, judged[pair.first, pair.second]) for pair in found if (pair.first, pair.second) in judged]
    said = [right for pair, right in known if pair.score >= min_score]
    truth = [right for _, right in known]
    print(f"\nPeople judged {len(judged):,} pairs: {sum(judged.values())} duplicates, {sum(truth)} of them candidates.")
    precision, recall = sum(said) / max(len(said), 1), sum(said) / sum(judged.values())
    print(f"precision {precision:.3f}, recall {recall:.3f} at score {min_score:g}")
    if any(truth):  # or else there is no average precision
        print(f"average precision of {len(known):,} judged candidates, {sum(truth) / len(known):.3f} by chance:")
        print(f"  cosine {average_precision_score(truth, [pair.cosine for pair, _ in known]):.3f}")
        print(f"  cross-encoder {average_precision_score(truth, [pair.score for pair, _ in known]):.3f}")


def built_in() -> tuple[list[str], Judged]:
    """The sentences of ``GROUPS``; every pair is judged."""
    grouped = [(text, group) for group, texts in enumerate(GROUPS) for text in texts]
    pairs = itertools.combinations(range(len(grouped)), 2)
    return [text for text, _ in grouped], {(a, b): grouped[a][1] == grouped[b][1] for a, b in pairs}


def sts(path: Path) -> tuple[list[str], Judged]:
    """The distinct sentences of the file, and its pairs of unequal ones."""
    rows = [row for row in read_sts(path) if row.first != row.second]
    positions = {
        text: at for at, text in enumerate(dict.fromkeys(text for row in rows for text in (row.first, row.second)))
    }
    judged = {}
    for row in rows:
        a, b = sorted((positions[row.first], positions[row.second]))
        judged[a, b] = row.target >= DUPLICATE
    return list(positions), judged


if __name__ == "__main__":
    main()
