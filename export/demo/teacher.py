"""The teacher: relevance logits from the base bi-encoder's cosine and a normalised BM25."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from .base import base_directory
from .lexical import Bm25

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
Band = tuple[int, int, int]  # from rank, to rank (exclusive), how many to draw


class Embedder:
    """The base bi-encoder (mean pooling, 256 tokens), with an optional cache directory."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._model = SentenceTransformer(str(base_directory()), device="cpu")

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors, `[texts, 384] float32`, computed in bfloat16."""
        digest = sha256("\0".join(texts).encode()).hexdigest()[:16]
        path = self._cache / f"{digest}.npy" if self._cache else None
        if path and path.is_file():
            return np.asarray(np.load(path), dtype=np.float32)
        log.info("embedding %d texts", len(texts))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            raw = self._model.encode(list(texts), batch_size=32, convert_to_tensor=True, show_progress_bar=False)
        vectors = torch.nn.functional.normalize(raw.float(), dim=1).numpy()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, vectors)
        return np.asarray(vectors, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Blend:
    """logit = cosine * `cosine` + bm25 * `bm25` + `bias`."""

    cosine: float
    bm25: float
    bias: float

    def __call__(self, cosine: Floats, bm25: Floats) -> Floats:
        """Return relevance logits of the arguments' common shape."""
        return np.asarray(self.cosine * cosine + self.bm25 * bm25 + self.bias, dtype=np.float32)


def fit_blend(cosine: Floats, bm25: Floats, labels: Floats, *, steps: int = 30, ridge: float = 1e-3) -> Blend:
    """Fit the blend by logistic regression (Newton's method); the three arguments are `[pairs]`."""
    x = np.stack([cosine, bm25, np.ones_like(cosine)], axis=1).astype(np.float64)
    w = np.zeros(3)
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-x @ w))
        gradient = x.T @ (labels - p) - ridge * w
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(3), gradient)
    return Blend(*(float(value) for value in w))


class Pool:
    """Candidate texts with their embeddings and BM25 weights."""

    def __init__(self, texts: Sequence[str], embed: Embedder) -> None:
        self.texts = list(texts)
        self._embed = embed
        self._vectors = embed(self.texts)
        self._bm25 = Bm25(self.texts)

    def features(self, queries: Sequence[str]) -> tuple[Floats, Floats]:
        """Return (cosine, normalised BM25), each `[queries, texts] float32`."""
        return self._embed(list(queries)) @ self._vectors.T, self._bm25.scores(queries)


def rank_bands(row: Floats, bands: Sequence[Band], banned: set[int], rng: np.random.Generator) -> list[int]:
    """Draw candidates from one query's scores, `[texts] float32`, without those in `banned`; best band first."""
    order = [int(i) for i in np.argsort(-row, kind="stable") if int(i) not in banned]
    chosen: list[int] = []
    for low, high, count in bands:
        band = order[low:high]
        chosen += [int(i) for i in rng.choice(band, size=min(count, len(band)), replace=False)]
    return list(dict.fromkeys(chosen))
