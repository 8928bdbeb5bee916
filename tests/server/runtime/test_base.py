import numpy as np

from pairwire.server.runtime.base import TokenBatch


def test_no_token_is_left_out_of_pooling_unless_a_batch_says_so() -> None:
    ids = np.ones((3, 4), np.int32)
    plain = TokenBatch(ids, ids, np.array([4, 2, 0], np.int32))
    assert plain.prompt_lengths.dtype == np.int32
    assert plain.prompt_lengths.tolist() == [0, 0, 0]
    given = TokenBatch(ids, ids, plain.lengths, np.array([2, 1, 0], np.int32))
    assert given.prompt_lengths.tolist() == [2, 1, 0]
