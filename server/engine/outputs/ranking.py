"""Scores -> the order of the documents."""

from __future__ import annotations

import numpy as np

from ...runtime.base import Float32Array


def rank(
    scores: Float32Array,
    top_k: int | None = None,
    min_score: float | None = None,
    *,
    otherwise: Float32Array | None = None,
) -> list[int]:
    """Indices of the ``top_k`` best of scores [documents], best first; equal scores by ascending index.

    NaN, for no score, comes last: by descending ``otherwise`` [documents] where that is given, else by ascending index.
    Scores below ``min_score``, as a float32, are left out.
    """
    order = np.argsort(-scores, kind="stable")
    if otherwise is not None and (missing := int(np.count_nonzero(np.isnan(scores)))):
        last = np.sort(order[-missing:])
        order[-missing:] = last[np.argsort(-otherwise[last], kind="stable")]
    order = order[:top_k]
    if min_score is not None:
        order = order[~(scores[order] < np.float32(min_score))]  # NaN is not below anything
    best: list[int] = order.tolist()
    return best
