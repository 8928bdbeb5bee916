"""A request may say which end of a text is cut off; the rows are those of a checkpoint that cuts there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairwire.server.engine import Truncation, TruncationDirection
from pairwire.server.engine.cache import ByteCache
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.errors import InvalidInput
from tests.server.engine import toys

LEFT, RIGHT = TruncationDirection.LEFT, TruncationDirection.RIGHT
texts = st.lists(st.sampled_from(["the", "fox", "bake", "x" * 90, "3.5", "é", "[SEP]", "?!"]), max_size=60).map(
    " ".join
)


def encoders(kind: str) -> tuple[TextEncoder, TextEncoder]:
    """Of a checkpoint that cuts the end, and of one that cuts the beginning."""
    tokenizer = toys.TOKENIZERS[kind]
    rules = [TextRules(max_length=11, truncate_left=left) for left in (False, True)]
    return TextEncoder(tokenizer(), rules[0]), TextEncoder(tokenizer(), rules[1])


@pytest.mark.parametrize("kind", toys.TOKENIZERS)
@settings(max_examples=40)
@given(first=texts, second=texts, prompt=st.sampled_from(["", "query: "]))
def test_rows_are_those_of_a_checkpoint_that_cuts_there(kind: str, first: str, second: str, prompt: str) -> None:
    right, left = encoders(kind)
    cache = ByteCache(1 << 20)  # one for both directions, as a model has
    for _ in range(2):
        for direction, own in ((RIGHT, right), (LEFT, left), (None, right)):
            pair = right.encode_pairs([first], [second], prompt=prompt, direction=direction, cache=cache)
            assert pair.rows == own.encode_pairs([first], [second], prompt=prompt).rows
            single = right.encode_texts([first, second], prompt=prompt, direction=direction, cache=cache)
            expected = own.encode_texts([first, second], prompt=prompt)
            assert single.rows == expected.rows
            assert single.truncated.tolist() == expected.truncated.tolist()
    assert left.encode_texts([first], direction=RIGHT).rows == right.encode_texts([first]).rows


def test_the_end_of_a_long_text_is_read_though_its_beginning_is_known() -> None:
    encoder, _ = encoders("wordpiece")
    cache, text = ByteCache(1 << 20), "fox " * 1000 + "bake bread"
    assert encoder.most_characters(Truncation.LONGEST_FIRST) < len(text)
    assert encoder.most_characters(Truncation.LONGEST_FIRST, LEFT) == math.inf
    encoder.encode_texts([text], cache=cache)
    (row,) = encoder.encode_texts([text], cache=cache, direction=LEFT).rows
    (end,) = encoder.encode_texts([" ".join(["fox"] * 20) + " bake bread"], direction=LEFT).rows
    assert row == end
    assert encoder.encode_texts([text], cache=cache).rows == encoder.encode_texts([text]).rows


def test_only_the_second_text_loses_its_beginning() -> None:
    encoder, _ = encoders("wordpiece")
    encoded = encoder.encode_pairs(
        ["fox"], ["the dog " * 9 + "bake"], truncation=Truncation.ONLY_SECOND, direction=LEFT
    )
    ids = encoder.tokenize(["fox", "bake"])
    row, split, _ = encoded.rows[0]
    assert ids[0] in row[: 4 * split]
    assert row.endswith(ids[1] + encoder.encode_pairs([""], [""]).special.suffix)
    with pytest.raises(InvalidInput, match="exceed max_length"):
        encoder.encode_pairs(["fox " * 20], ["a"], truncation=Truncation.ONLY_SECOND, direction=LEFT)
