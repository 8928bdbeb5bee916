"""Any batch that fits is staged so that no value of its result is computed from memory that nobody has written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.runtime.base import Int32Array, TokenBatch
from pairwire.server.runtime.packed import MOST_TOKENS, SHORT, PackedBatch, PackedShape, PackedShapes

PAD = 99
lengths_of_models = st.integers(17, 600)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A batch and the shape that it got."""

    shapes: PackedShapes
    shape: PackedShape
    batch: PackedBatch


@st.composite
def fitted(draw: st.DrawFn) -> Fitted:
    """A batch of any lengths that a model may give to its runtime."""
    longest = draw(lengths_of_models)
    shapes = PackedShapes(longest=longest, most_tokens=draw(st.integers(1, 3000)))
    most = draw(st.integers(1, longest))  # some batches have short rows only
    lengths: list[int] = []
    for length in draw(st.lists(st.integers(1, most), min_size=1, max_size=shapes.most_rows)):
        if sum(lengths) + length <= shapes.tokens[-1]:
            lengths.append(length)
    batch = filled(lengths)
    return Fitted(shapes, shapes.fit(sum(lengths), len(lengths), max(lengths)), batch)


def filled(lengths: Sequence[int]) -> PackedBatch:
    """Rows in which no token is 0, and no two tokens are alike."""
    ids = np.arange(1000, 1000 + sum(lengths), dtype=np.int32)
    return PackedBatch(ids, ids % 2 + 1, np.array(lengths, np.int32))


@dataclass(frozen=True, slots=True)
class Staged:
    """A buffer, read as the device does."""

    ids: Int32Array
    types: Int32Array
    positions: Int32Array
    cumulative: Int32Array


def staged(shape: PackedShape, batch: PackedBatch) -> Staged:
    buffer = shape.stage(batch, PAD)
    assert (buffer.shape, buffer.dtype) == ((shape.size,), np.int32)
    sizes = (shape.tokens, shape.tokens, shape.tokens, shape.rows + 1)
    return Staged(*(buffer[begin : begin + size] for begin, size in zip(shape.begins(), sizes, strict=True)))


@given(fitted())
def test_every_token_belongs_to_one_row_and_every_row_begins_at_a_token(case: Fitted) -> None:
    cumulative = staged(case.shape, case.batch).cumulative
    assert (cumulative[0], cumulative[-1]) == (0, case.shape.tokens)
    lengths = np.diff(cumulative)
    assert lengths.min() >= 0
    assert lengths.max() <= case.shape.length
    assert cumulative[:-1].max() < case.shape.tokens
    np.testing.assert_array_equal(lengths, case.shape.row_lengths(case.batch.lengths))


@given(fitted())
def test_empty_rows_come_first(case: Fitted) -> None:
    lengths = case.shape.row_lengths(case.batch.lengths)
    assert lengths.sum() == case.shape.tokens
    assert np.count_nonzero(lengths[: case.shape.first_row(case.batch)]) == 0
    assert lengths[case.shape.first_row(case.batch) :].min() >= 1


@given(fitted())
def test_rows_with_text_are_found_at_the_first_row(case: Fitted) -> None:
    got = staged(case.shape, case.batch)
    first = case.shape.first_row(case.batch)
    begins, ends = got.cumulative[first:-1], got.cumulative[first + 1 :]
    expected_ends = np.cumsum(case.batch.lengths)
    rows = case.batch.rows
    np.testing.assert_array_equal(ends[:rows], expected_ends)
    np.testing.assert_array_equal(begins[:rows], expected_ends - case.batch.lengths)
    used = len(case.batch.input_ids)
    np.testing.assert_array_equal(got.ids[:used], case.batch.input_ids)
    np.testing.assert_array_equal(got.types[:used], case.batch.token_type_ids)


@given(fitted())
def test_what_fills_the_shape_is_padding(case: Fitted) -> None:
    got = staged(case.shape, case.batch)
    used = len(case.batch.input_ids)
    assert set(got.ids[used:].tolist()) <= {PAD}
    assert set(got.types[used:].tolist()) <= {0}


@given(fitted())
def test_positions_count_from_zero_in_each_row(case: Fitted) -> None:
    lengths = case.shape.row_lengths(case.batch.lengths).tolist()
    expected = [position for length in lengths for position in range(length)]
    assert staged(case.shape, case.batch).positions.tolist() == expected


@given(fitted())
def test_token_offset_is_a_permutation_with_the_places_of_tokens_first(case: Fitted) -> None:
    shape = case.shape
    lengths = shape.row_lengths(case.batch.lengths)
    offset = shape.token_offset(lengths)
    assert (offset.shape, offset.dtype) == ((shape.rows, shape.length), np.int32)
    flat = offset.reshape(-1)
    np.testing.assert_array_equal(np.sort(flat), np.arange(shape.rows * shape.length))
    tokens = [row * shape.length + at for row, length in enumerate(lengths.tolist()) for at in range(length)]
    assert flat[: shape.tokens].tolist() == tokens


@given(fitted())
def test_a_batch_gets_the_smallest_shape_that_holds_it(case: Fitted) -> None:
    tokens, rows, longest = len(case.batch.input_ids), case.batch.rows, int(case.batch.lengths.max())
    holding = [shape for shape in case.shapes if shape.length >= longest and shape.holds(tokens, rows)]
    assert case.shape == min(holding)


@given(fitted())
def test_the_parts_of_the_buffer_are_aligned_and_do_not_overlap(case: Fitted) -> None:
    begins = case.shape.begins()
    sizes = (case.shape.tokens, case.shape.tokens, case.shape.tokens, case.shape.rows + 1)
    assert all(begin % 64 == 0 for begin in begins)
    for begin, size, end in zip(begins, sizes, (*begins[1:], case.shape.size), strict=True):
        assert begin + size <= end


@given(longest=lengths_of_models, most_tokens=st.integers(1, 3000))
def test_shapes_come_largest_first_and_each_once(longest: int, most_tokens: int) -> None:
    shapes = PackedShapes(longest=longest, most_tokens=most_tokens)
    every = list(shapes)
    assert every == sorted(every, reverse=True)
    assert len(set(every)) == len(every) == len(shapes.tokens) * len(shapes.lengths)
    assert shapes.tokens[-1] == max(longest, most_tokens)
    assert shapes.lengths[-1] == longest


@given(longest=lengths_of_models, most_tokens=st.integers(1, 3000))
def test_every_shape_can_be_full_of_rows_of_any_length(longest: int, most_tokens: int) -> None:
    for shape in PackedShapes(longest=longest, most_tokens=most_tokens):
        assert shape.holds(shape.tokens, -(-shape.tokens // shape.length))
        assert shape.holds(1, 1)


def test_short_rows_have_shapes_of_their_own_only_where_there_are_longer_ones() -> None:
    assert PackedShapes(longest=SHORT, most_tokens=512).lengths == (SHORT,)
    assert PackedShapes(longest=SHORT + 1, most_tokens=512).lengths == (SHORT, SHORT + 1)


def test_steps_grow_with_the_tokens_and_end_at_the_operators_limit() -> None:
    assert PackedShapes(longest=128, most_tokens=1000).tokens == (64, 128, 192, 256, 384, 512, 768, 1000)
    assert PackedShapes(longest=128, most_tokens=10**9).tokens[-1] == MOST_TOKENS


@pytest.mark.parametrize(
    ("tokens", "rows", "longest"), [(513, 4, 129), (512, 4, 201), (200, 60, 10)], ids=["tokens", "longest", "rows"]
)
def test_a_batch_that_is_too_large_is_refused_with_its_numbers_and_the_limits(
    tokens: int, rows: int, longest: int
) -> None:
    shapes = PackedShapes(longest=200, most_tokens=512)
    sentence = (
        f"a batch of {rows} rows with {tokens} tokens, the longest of {longest}, is larger than the largest shape: "
        "32 rows with 512 tokens, the longest of 200"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        shapes.fit(tokens, rows, longest)


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    length=st.integers(12, 16),
)
def test_padded_rows_are_packed_without_their_padding(lengths: list[int], length: int) -> None:
    ids = np.arange(1, len(lengths) * length + 1, dtype=np.int32).reshape(len(lengths), length)
    packed = PackedBatch.of(TokenBatch(ids, ids + 5, np.array(lengths, np.int32)))
    kept = [max(1, each) for each in lengths]  # a row without tokens becomes one token of padding
    assert packed.lengths.tolist() == kept
    assert packed.lengths.dtype == np.int32
    assert packed.rows == len(lengths)
    assert packed.input_ids.tolist() == [int(each) for row, end in zip(ids, kept, strict=True) for each in row[:end]]
    np.testing.assert_array_equal(packed.token_type_ids, packed.input_ids + 5)
