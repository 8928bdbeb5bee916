"""Scores of the kernels of a GPU against the checkpoint in float32, and how far torch's own float16 is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..agreement import agreement
from ..datasets import Pair
from .systems import Scores

COLUMNS = ("dataset", "system", "pairs", "max_abs_diff", "mean_abs_diff", "spearman")


def differences(
    dataset: str, pairs: Sequence[Pair], reference: Scores, scores: Mapping[str, Scores]
) -> list[dict[str, object]]:
    """A row for each system."""
    return [
        {
            "part": "parity",
            "dataset": dataset,
            "system": name,
            "pairs": len(pairs),
            **agreement(found, reference),
        }
        for name, found in scores.items()
    ]
