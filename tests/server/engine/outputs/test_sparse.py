from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pairwire.server.engine.outputs.sparse import MOST_BYTES, check_size, to_sparse
from pairwire.server.errors import InvalidInput
from pairwire.server.runtime.base import Float32Array

DENSE = np.array([[0, 2, 0, 1, 3], [0, 0, 0, 0, 0], [5, 5, -1, 5, 1]], np.float32)


def test_what_is_above_zero_comes_row_by_row_with_ascending_indices() -> None:
    indices, values, counts = to_sparse(DENSE)
    assert indices.tolist() == [1, 3, 4, 0, 1, 3, 4]
    assert values.tolist() == [2, 1, 3, 5, 5, 5, 1]
    assert counts.tolist() == [3, 0, 4]
    assert (indices.dtype, values.dtype, counts.dtype) == (np.uint32, np.float32, np.uint32)


def test_the_largest_weights_are_kept_and_of_equal_ones_those_with_the_lower_index() -> None:
    indices, values, counts = to_sparse(DENSE, 2)
    assert indices.tolist() == [1, 4, 0, 1]
    assert values.tolist() == [2, 3, 5, 5]
    assert counts.tolist() == [2, 0, 2]


def test_no_rows_are_no_weights() -> None:
    indices, values, counts = to_sparse(np.zeros((0, 5), np.float32))
    assert (len(indices), len(values), len(counts)) == (0, 0, 0)


@given(arrays.arrays(np.float32, (3, 7), elements=st.sampled_from([-1, 0, 0, 0.5, 1, 2, 3])), st.integers(0, 8))
def test_the_rows_are_those_of_a_stable_sort(dense: Float32Array, most: int) -> None:
    indices, values, counts = to_sparse(dense, most)
    ends = np.cumsum(counts)
    for row, begin, end in zip(dense, ends - counts, ends, strict=True):
        order = [int(at) for at in np.argsort(-row, kind="stable") if row[at] > 0][: most or None]
        assert indices[begin:end].tolist() == sorted(order)
        assert values[begin:end].tolist() == row[sorted(order)].tolist()


def test_too_many_texts_for_the_vocabulary_are_refused_with_how_many_may_come() -> None:
    most = MOST_BYTES // (30_522 * 4)
    check_size(most, 30_522)
    with pytest.raises(InvalidInput, match=rf"2199 texts of 30522 weights .* at most 256 MiB .* send at most {most} "):
        check_size(most + 1, 30_522)
