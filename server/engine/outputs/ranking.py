"""Scores -> the order of the documents."""

from __future__ import annotations

import numpy as np

from ...runtime.base import Float32Array


def rank(scores: Float32Array, top_k: int | None = None, min_score: float | None = None) -> list[int]:
    """Indices of the ``top_k`` best of scores [documents], best first; equal scores by ascending index.

    Those below ``min_score``, as a float32, are left out.
    """
    best = np.argsort(-scores, kind="stable")[:top_k]
    if min_score is not None:
        best = best[scores[best] >= np.float32(min_score)]
    indices: list[int] = best.tolist()
    return indices
