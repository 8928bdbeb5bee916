import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.buckets import Bucket, Ladder


def test_ladder_has_steps_of_eight_up_to_512_and_ends_at_the_models_limit() -> None:
    assert Ladder.up_to(512).lengths == tuple(range(8, 513, 8))
    assert Ladder.up_to(20).lengths == (8, 16, 20)
    assert Ladder.up_to(5).lengths == (5,)


def test_ladder_is_coarser_where_rows_are_long() -> None:
    assert Ladder.up_to(600).lengths[-4:] == (512, 544, 576, 600)
    assert Ladder.up_to(8192).lengths[-2:] == (7680, 8192)
    assert len(Ladder.up_to(8192)) < 120


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
