"""What results tell of themselves."""

import numpy as np
import pytest

from pairwire.client import ScoreResult, SparseEmbedResult, Timing, Usage

USAGE, TIMING = Usage(1, 0), Timing(0, 0, 0, 0)


def scored(scores: list[list[float]], *labels: str) -> ScoreResult:
    return ScoreResult(np.array(scores, np.float32), labels, "m", USAGE, TIMING)


def test_the_best_label_is_the_first_of_the_highest() -> None:
    result = scored([[1, 3, 2], [5, 0, 5], [-3, -2, -1]], "contradiction", "entailment", "neutral")
    assert result.best_labels() == ["entailment", "contradiction", "neutral"]


def test_one_label_is_never_the_best() -> None:
    with pytest.raises(ValueError, match="model 'm' has one label, 'relevant'; read its scores"):
        scored([[1], [2]], "relevant").best_labels()


def test_sparse_rows_fit_scipys_matrix() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    result = SparseEmbedResult(
        indices=np.array([2, 5, 0], np.uint32),
        values=np.array([0.5, 1, 2], np.float32),
        counts=np.array([2, 0, 1], np.uint32),
        dimensions=6,
        model="m",
        usage=USAGE,
        timing=TIMING,
    )
    matrix = sparse.csr_array((result.values, result.indices, result.offsets), shape=result.shape)
    assert np.array_equal(matrix.toarray(), result.to_dense())
    assert result.to_dense().tolist() == [[0, 0, 0.5, 0, 0, 1], [0] * 6, [2, 0, 0, 0, 0, 0]]
