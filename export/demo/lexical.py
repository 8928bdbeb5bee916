"""BM25 over a corpus that fits in memory, normalised to 0..1 so that queries of any length compare."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

K1 = 0.9
B = 0.4
_STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from has have in into is it its of on or that the their this to was were which"
        " with what who when where how why did does do not no",
    )
)


def terms(text: str) -> list[str]:
    """Return lower-case words without stop words and without a plural s."""
    return [_singular(word) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOPWORDS]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class Bm25:
    """The term weights of `texts`."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        self._vocabulary = {t: i for i, t in enumerate(sorted({t for c in counts for t in c}))}
        sizes = np.array([sum(c.values()) for c in counts], dtype=np.float64)
        frequency = Counter(t for c in counts for t in c)
        self._idf = np.array(
            [np.log1p((len(texts) - frequency[t] + 0.5) / (frequency[t] + 0.5)) for t in self._vocabulary]
        )
        rows = np.repeat(np.arange(len(texts)), [len(c) for c in counts])
        columns = np.array([self._vocabulary[t] for c in counts for t in c])
        tf = np.array([n for c in counts for n in c.values()], dtype=np.float64)
        norm = K1 * (1 - B + B * sizes / sizes.mean())
        weight = self._idf[columns] * tf / (tf + norm[rows])
        self._weights = sparse.csr_matrix((weight, (rows, columns)), shape=(len(texts), len(self._vocabulary)))

    def scores(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return `[queries, texts] float32`: BM25 over the best that any text could reach, 0..1."""
        known = [sorted({self._vocabulary[t] for t in terms(q) if t in self._vocabulary}) for q in queries]
        rows = np.repeat(np.arange(len(queries)), [len(k) for k in known])
        columns = np.array([c for k in known for c in k], dtype=np.int64)
        hits = sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(queries), len(self._vocabulary)))
        best = np.maximum(hits @ self._idf, 1e-6)
        return np.asarray((hits @ self._weights.T).toarray() / best[:, None], dtype=np.float32)
