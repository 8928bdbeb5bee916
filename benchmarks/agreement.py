"""How far scores are from a reference's: the columns that every comparison of systems has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr


def agreement(found: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> dict[str, object]:
    """max_abs_diff, mean_abs_diff and spearman of two arrays [pairs]."""
    difference = np.abs(found - reference)
    return {
        "max_abs_diff": float(difference.max()),
        "mean_abs_diff": float(difference.mean()),
        "spearman": float(spearmanr(found, reference).statistic),
    }
