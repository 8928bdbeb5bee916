"""Documents in the order of their scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.outputs.ranking import rank


@given(st.lists(st.sampled_from([-2.5, -0.0, 0.0, 1.0, 3.25]), min_size=1), st.integers(1, 20))
def test_ranking_is_by_descending_score_then_ascending_index(scores: list[float], top_k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:top_k]
    assert rank(np.array(scores, np.float32), top_k) == expected


def test_documents_below_the_least_score_are_left_out() -> None:
    scores = np.array([0.7, 0.1, 0.9, 0.7], np.float32)
    assert rank(scores, min_score=0.7) == [2, 0, 3]  # 0.7 is another number as a float32
    assert rank(scores, 2, 0.1) == [2, 0]
    assert rank(scores, min_score=0.95) == []
    assert rank(scores, min_score=float("-inf")) == [2, 0, 3, 1]
