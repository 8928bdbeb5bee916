from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pairwire.server.engine import TokenIds
from pairwire.server.engine.text.token_ids import check_texts, forbid_ids
from pairwire.server.errors import InvalidInput
from pairwire.v1 import scoring_pb2


def test_token_ids_are_a_value() -> None:
    made = TokenIds([0, 7, (1 << 31) - 1])
    assert made == TokenIds(iter((0, 7, (1 << 31) - 1)))
    assert hash(made) == hash(TokenIds((0, 7, (1 << 31) - 1)))
    assert made != TokenIds([0, 7])
    assert (len(made), made.ids) == (3, (0, 7, (1 << 31) - 1))
    assert np.frombuffer(made.data, np.int32).tolist() == list(made.ids)
    assert repr(made) == "TokenIds(<3 tokens>)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.data = b""  # type: ignore[misc]  # the point of the test


def test_there_may_be_none() -> None:
    assert (len(TokenIds([])), TokenIds([]).ids) == (0, ())
    TokenIds([]).check(1, "texts[0]")


def test_ids_of_numpy_are_integers_too() -> None:
    assert TokenIds(np.array([1, 2], np.int64)).ids == (1, 2)
    with pytest.raises(InvalidInput, match=r"^token_ids\.ids\[1\]: -2 is no token id"):
        TokenIds(np.array([1, -2], np.int64))
    assert TokenIds(np.array([(1 << 31) - 1], np.uint32)).ids == ((1 << 31) - 1,)
    assert TokenIds(np.array([], np.uint32)).ids == ()
    with pytest.raises(InvalidInput, match=r"^token_ids\.ids\[2\]: 4294967295 is no token id"):
        TokenIds(np.array([0, 1, (1 << 32) - 1], np.uint32))
    with pytest.raises(InvalidInput, match=r"^token_ids\.ids\[0\]: .*float.* is no token id"):
        TokenIds(np.array([0.5]))


def test_ids_of_a_message_are_taken_as_a_whole() -> None:
    message = scoring_pb2.TokenIds(ids=[5, 0, 7])
    assert TokenIds(message.ids) == TokenIds([5, 0, 7])
    assert TokenIds(scoring_pb2.TokenIds().ids) == TokenIds([])


@pytest.mark.parametrize("given", [5, None, object()])
def test_what_is_no_row_of_ids_is_told(given: object) -> None:
    with pytest.raises(InvalidInput, match=f"^text.ids: expected integers .* in a row, got {type(given).__name__}$"):
        TokenIds(given, field="text")  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, -1], r"^token_ids\.ids\[1\]: -1 is no token id; ids are integers from 0 to 2147483647$"),
        ([1 << 31], r"^token_ids\.ids\[0\]: 2147483648 is no token id"),
        ([1, 2, 3.0], r"^token_ids\.ids\[2\]: float is no token id"),
        (["a"], r"^token_ids\.ids\[0\]: str is no token id"),
        ("ab", r"^token_ids\.ids\[0\]: str is no token id"),
        ([1, None], r"^token_ids\.ids\[1\]: NoneType is no token id"),
    ],
)
def test_what_is_no_id_is_refused_by_place(ids: list[int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TokenIds(ids)


def test_the_caller_says_what_it_calls_them() -> None:
    with pytest.raises(InvalidInput, match=r"^pairs\[3\]\.first\.ids\[0\]: -5 is no token id") as caught:
        TokenIds([-5], field="pairs[3].first")
    assert caught.value.field == "pairs[3].first.ids[0]"


def test_texts_and_ids_are_checked_together() -> None:
    assert check_texts(["a", "é"], "texts[{}]") is False
    assert check_texts(["a", TokenIds([9])], "texts[{}]", 10) is True
    with pytest.raises(InvalidInput, match=r"^texts\[1\]\.ids\[2\]: 10 is outside the model.s vocabulary; .* below"):
        check_texts(["a", TokenIds([9, 0, 10])], "texts[{}]", 10)


def test_where_text_is_needed_ids_are_refused_with_the_reason() -> None:
    forbid_ids(["a"], "texts[{}]", "here is why")
    with pytest.raises(InvalidInput, match=r"^texts\[1\]: token ids are no text, and here is why$"):
        forbid_ids(["a", TokenIds([1])], "texts[{}]", "here is why")
