"""How inputs are cut into requests: nothing lost, nothing out of order, no part over the limits."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.client import InvalidInput, SplitLimits
from pairwire.client.inputs import EmbedOptions, ScoreOptions
from pairwire.client.requests import embed_parts, rerank_parts, score_documents_parts, score_parts

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
LIMITS = st.builds(SplitLimits, max_items=st.integers(1, 60), max_bytes=st.integers(400, 600))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=60), LIMITS)
def test_parts_of_pairs_are_the_pairs_and_keep_to_the_limits(pairs: list[tuple[str, str]], limits: SplitLimits) -> None:
    parts = list(score_parts(pairs, ScoreOptions(model="m"), limits))
    sent = [(pair.first, pair.second) for part in parts for pair in part.message.text_pairs.pairs]
    assert sent == pairs
    assert [part.start for part in parts] == [sum(part.count for part in parts[:at]) for at in range(len(parts))]
    for part in parts:
        assert part.count == len(part.message.text_pairs.pairs) <= limits.max_items
        assert part.message.ByteSize() <= limits.max_bytes


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=120), LIMITS)
def test_parts_of_documents_keep_to_the_limits(query: str, documents: list[str], limits: SplitLimits) -> None:
    scored = list(score_documents_parts(query, documents, ScoreOptions(), limits))
    ranked = list(rerank_parts(query, documents, 3, ScoreOptions(), limits))
    embedded = list(embed_parts(documents, EmbedOptions(prompt_name="p"), limits))
    assert [text for part in scored for text in part.message.query_documents.documents] == documents
    assert [text for part in ranked for text in part.message.documents] == documents
    assert [text for part in embedded for text in part.message.texts] == documents
    for part in [*scored, *ranked, *embedded]:
        assert part.count <= limits.max_items
        assert part.message.ByteSize() <= limits.max_bytes


def test_parts_are_as_full_as_the_limits_allow() -> None:
    parts = list(score_parts([("a", "b")] * 9, ScoreOptions(), SplitLimits(max_items=4)))
    assert [part.count for part in parts] == [4, 4, 1]


def test_the_iterable_is_read_no_further_than_needed() -> None:
    read = []

    def pairs() -> Iterator[tuple[str, str]]:
        for index in range(100):
            read.append(index)
            yield str(index), ""

    next(score_parts(pairs(), ScoreOptions(), SplitLimits(max_items=4)))
    assert len(read) == 5  # the fifth says that the part is full


def test_a_long_query_counts_in_every_part() -> None:
    with pytest.raises(InvalidInput, match=r"documents\[0\]: \d+ bytes with the rest of its request"):
        list(rerank_parts("q" * 3000, ["a"], None, ScoreOptions(), SplitLimits(max_bytes=1000)))


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 200])
def test_texts_of_every_size_fill_a_part_and_no_more(size: int) -> None:
    limits, texts = SplitLimits(max_items=1000, max_bytes=500), ["x" * size] * 1000
    parts = [
        *score_parts([(text, "") for text in texts], ScoreOptions(), limits),
        *score_documents_parts("q", texts, ScoreOptions(), limits),
        *rerank_parts("q", texts, 3, ScoreOptions(), limits),
        *embed_parts(texts, EmbedOptions(), limits),
    ]
    assert max(part.message.ByteSize() for part in parts) <= 500
