import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.buckets import Bucket, Ladder


def test_ladder_is_finest_where_rows_are_short_and_ends_at_the_models_limit() -> None:
    assert Ladder.up_to(512).lengths == (*range(8, 65, 2), *range(68, 129, 4), *range(136, 513, 8))
    assert Ladder.up_to(11).lengths == (8, 10, 11)
    assert Ladder.up_to(1).lengths == (1,)


def test_from_the_unpadded_length_on_every_length_is_a_step() -> None:
    ladder = Ladder.up_to(300, unpadded_from=256)
    assert ladder.lengths[ladder.unpadded_level :] == tuple(range(256, 301))
    assert ladder.lengths[ladder.unpadded_level - 1] < 256
    assert Ladder.up_to(255, unpadded_from=256).unpadded_level == len(Ladder.up_to(255))
    assert Ladder.up_to(512).unpadded_level == len(Ladder.up_to(512))


def test_a_ladder_that_would_pad_what_must_not_be_padded_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be padded"):
        Ladder((8, 16, 24), unpadded_from=16)


def test_ladder_is_coarser_where_rows_are_long() -> None:
    assert Ladder.up_to(600).lengths[-4:] == (512, 544, 576, 600)
    assert Ladder.up_to(8192).lengths[-2:] == (7680, 8192)
    assert len(Ladder.up_to(8192)) < 150


@given(limit=st.integers(1, 9000), share=st.floats(0, 1))
def test_every_row_gets_the_shortest_length_that_holds_it(limit: int, share: float) -> None:
    ladder = Ladder.up_to(limit)
    row = max(1, round(limit * share))
    level = int(ladder.levels(np.array([row], dtype=np.int32))[0])
    assert ladder.lengths[level] >= row
    assert level == 0 or ladder.lengths[level - 1] < row


@pytest.mark.parametrize("lengths", [(), (0, 8), (8, 8), (16, 8)])
def test_lengths_that_do_not_ascend_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending positive"):
        Ladder(lengths)


def test_bucket_counts_padding_too() -> None:
    assert Bucket(rows=3, length=16).tokens == 48


def test_rows_that_are_not_padded_are_sorted_in_steps_of_eight_and_then_of_a_sixteenth() -> None:
    assert Ladder.unpadded(200).lengths == (*range(8, 129, 8), 136, 144, 153, 162, 172, 182, 193, 200)
    assert Ladder.unpadded(20).lengths == (8, 16, 20)
    assert Ladder.unpadded(5).lengths == (5,)
    assert Ladder.unpadded(1).lengths == (1,)


@given(st.integers(1, 9000))
def test_a_ladder_of_unpadded_rows_ends_at_the_limit_and_is_short(limit: int) -> None:
    ladder = Ladder.unpadded(limit)
    assert ladder.lengths[-1] == limit
    assert len(ladder) < 100
    assert ladder.unpadded_level == len(ladder)  # its rows share batches
