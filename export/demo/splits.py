"""What may be trained on and what is held out; fixed by content, not by chance."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from .data import Question, ScoredPair

HELD_OUT_QNLI_ROWS = 1000
DEV_CLAIMS = 60


def content_order(text: str) -> str:
    """Return a sort key that looks random but never changes for the same text."""
    return sha256(text.encode()).hexdigest()


def split_qnli(rows: Sequence[ScoredPair]) -> tuple[list[ScoredPair], list[ScoredPair]]:
    """Return (training rows, at least 1,000 held-out rows); the two share no sentence and no question."""
    sentences = sorted({row.second for row in rows}, key=content_order)
    by_sentence: dict[str, list[ScoredPair]] = {}
    for row in rows:
        by_sentence.setdefault(row.second, []).append(row)
    held: list[ScoredPair] = []
    for sentence in sentences:
        if len(held) >= HELD_OUT_QNLI_ROWS:
            break
        held += by_sentence[sentence]
    seen = {row.second for row in held} | {row.first for row in held}
    return [row for row in rows if row.first not in seen and row.second not in seen], held


def clean_questions(questions: Sequence[Question], held: Sequence[ScoredPair]) -> list[Question]:
    """Return the questions that share neither their text nor a sentence of their paragraph with `held`.

    QNLI and XQuAD are both made of SQuAD's development set.
    """
    texts = {row.first.strip() for row in held}
    sentences = {row.second for row in held}
    dirty = {q.paragraph for q in questions if any(sentence in q.paragraph for sentence in sentences)}
    return [q for q in questions if q.text.strip() not in texts and q.paragraph not in dirty]


def split_claims(
    queries: dict[str, str], train: dict[str, dict[str, int]], test: dict[str, dict[str, int]]
) -> tuple[list[str], list[str]]:
    """Return (training keys, development keys) of the SciFact training claims.

    Claims whose text is also a test claim are in neither.
    """
    forbidden = {queries[key] for key in test}
    keys = sorted((key for key in train if queries[key] not in forbidden), key=lambda k: content_order(queries[k]))
    return keys[DEV_CLAIMS:], keys[:DEV_CLAIMS]
