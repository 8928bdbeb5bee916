"""Scores -> the order of the documents."""

from __future__ import annotations

import numpy as np

from ...runtime.base import Float32Array


def rank(scores: Float32Array, top_k: int | None = None) -> list[int]:
    """Indices of the ``top_k`` best of scores [documents], best first; equal scores by ascending index."""
    best: list[int] = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return best
