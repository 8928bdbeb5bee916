"""Token ids that stand where a text stands."""

import numpy as np
import pytest

from pairwire.client import InvalidInput, TokenIds


@pytest.mark.parametrize(
    "given", [[1, 2, 3], (1, 2, 3), range(1, 4), iter([1, 2, 3]), np.array([1, 2, 3]), np.array([1, 2, 3], np.uint8)]
)
def test_whole_numbers_of_any_kind_are_ids(given: object) -> None:
    ids = TokenIds(given)  # type: ignore[arg-type]
    assert ids == TokenIds([1, 2, 3])
    assert (ids.ids, len(ids), repr(ids)) == ((1, 2, 3), 3, "TokenIds(<3 tokens>)")
    assert {type(each) for each in ids.ids} == {int}


def test_no_ids_are_an_empty_text() -> None:
    assert TokenIds([]).ids == ()
    assert TokenIds(np.array([])).ids == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, -1], r"^ids\[1\]: -1 is not between 0 and 2147483647"),
        ([2**31], r"^ids\[0\]: 2147483648 is not between"),
        ([2**70], "^ids: expected whole numbers in a row, got object"),
        ([1.0], r"^ids: expected whole numbers in a row, got float64 \[1\]"),
        ([True], "^ids: expected whole numbers in a row, got bool"),
        ("text", "^ids: expected whole numbers in a row, got <U1"),
        (5, "^ids: expected whole numbers in a row, got int$"),
        (None, "^ids: expected whole numbers in a row, got NoneType$"),
        ([[1], [1, 2]], "^ids: expected whole numbers in a row, but numpy says: setting an array element"),
        ([[1, 2]], r"^ids: expected whole numbers in a row, got int64 \[1, 2\]"),
    ],
)
def test_what_is_no_id_is_named(given: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TokenIds(given)  # type: ignore[arg-type]
