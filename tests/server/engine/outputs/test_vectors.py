"""Cutting, normalising and quantising vectors, beside sentence-transformers' own functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pairwire.server.engine.outputs.vectors import check_dimensions, shape_vectors, to_bits, to_int8
from pairwire.server.errors import InvalidInput

NUMBERS = st.floats(-8, 8, width=32)
VECTORS = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 20)), elements=NUMBERS)


@pytest.mark.slow
@given(VECTORS, st.integers(1, 20), st.booleans())
def test_vectors_are_cut_and_then_normalised_as_by_sentence_transformers(
    vectors: np.ndarray, dimensions: int, normalize: bool
) -> None:
    import torch
    from sentence_transformers.util import truncate_embeddings

    dimensions = min(dimensions, vectors.shape[1])
    expected = truncate_embeddings(torch.from_numpy(vectors), dimensions)
    if normalize:
        expected = torch.nn.functional.normalize(expected, p=2, dim=1)
    found = shape_vectors(vectors, dimensions, normalize)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found == pytest.approx(expected.numpy(), rel=1e-6, abs=1e-30)


@pytest.mark.slow
@given(VECTORS, st.data())
def test_int8_is_what_sentence_transformers_quantises_with_the_same_ranges(
    vectors: np.ndarray, data: st.DataObject
) -> None:
    from sentence_transformers.util import quantize_embeddings

    dimensions = vectors.shape[1]
    ranges = np.sort(data.draw(arrays.arrays(np.float32, (2, dimensions + 3), elements=NUMBERS)), axis=0)
    with np.errstate(over="ignore"):  # a range of almost nothing
        expected = quantize_embeddings(vectors, precision="int8", ranges=ranges[:, :dimensions])
    found = to_int8(vectors, ranges[0].tolist(), ranges[1].tolist())
    assert found.dtype == np.int8
    assert np.array_equal(found, expected)


@pytest.mark.slow
@given(VECTORS)
def test_bits_are_what_sentence_transformers_packs(vectors: np.ndarray) -> None:
    from sentence_transformers.util import quantize_embeddings

    found = to_bits(vectors)
    assert found.dtype == np.uint8
    assert found.shape == (len(vectors), -(-vectors.shape[1] // 8))
    assert np.array_equal(found, quantize_embeddings(vectors, precision="ubinary"))


def test_a_range_of_almost_nothing_overflows_in_silence() -> None:
    assert to_int8(np.array([[1], [-1]], np.float32), [0], [1e-38]).ravel().tolist() == [127, -128]


def test_what_lies_outside_the_range_becomes_its_end() -> None:
    vectors = np.array([[-5, -2, 0, 2, 5]], np.float32).T
    assert to_int8(vectors, [-1], [1]).ravel().tolist() == [-128, -128, -1, 127, 127]


def test_a_dimension_that_never_changed_still_says_below_or_above() -> None:
    assert to_int8(np.array([[-1], [2], [4]], np.float32), [2], [2]).ravel().tolist() == [-128, -128, -126]


def test_a_row_of_zeros_has_no_direction_and_stays() -> None:
    assert shape_vectors(np.zeros((1, 3), np.float32), None, True).tolist() == [[0, 0, 0]]


def test_vectors_are_handed_on_where_there_is_nothing_to_do() -> None:
    vectors = np.ones((2, 3), np.float32)
    for normalize in (None, False):
        assert shape_vectors(vectors, None, normalize) is vectors


@pytest.mark.parametrize("dimensions", [0, -1, 4, 2**32 - 1])
def test_dimensions_out_of_range_are_refused_with_the_range(dimensions: int) -> None:
    with pytest.raises(InvalidInput, match=f"^dimensions: {dimensions} is not between 1 and 3"):
        shape_vectors(np.ones((2, 3), np.float32), dimensions, None)
    check_dimensions(None, 3)
    check_dimensions(3, 3)
