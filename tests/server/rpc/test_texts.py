"""The texts of requests become plain values, and what cannot be one is told where it stands."""

from __future__ import annotations

import pytest

from pairwire.server.config import RequestLimits
from pairwire.server.engine.text.token_ids import TokenIds
from pairwire.server.errors import InvalidInput
from pairwire.server.rpc import texts
from pairwire.v1 import embedding_pb2, scoring_pb2

LIMITS = RequestLimits(max_items=3, max_text_bytes=8, max_message_bytes=1024)


def ids(*numbers: int) -> scoring_pb2.TokenIds:
    return scoring_pb2.TokenIds(ids=numbers)


def test_pairs_are_read_in_order() -> None:
    pairs = [scoring_pb2.TextPair(first="a", second="b"), scoring_pb2.TextPair()]
    assert texts.decode_pairs("pairs", pairs, LIMITS) == [("a", "b"), ("", "")]


@pytest.mark.parametrize("text", ["x" * 8, "é" * 4, "猫猫", "🤷🤷"])
def test_a_text_of_the_limit_in_bytes_is_taken(text: str) -> None:
    assert texts.decode_texts("texts", [text], LIMITS) == [text]


@pytest.mark.parametrize("text", ["x" * 9, "é" * 5, "猫猫猫", "🤷🤷x"])
def test_a_text_beyond_the_limit_in_bytes_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^texts\[1\]: \d+ bytes exceed --max-text-bytes 8"):
        texts.decode_texts("texts", ["a", text], LIMITS)


def test_token_ids_stand_in_place_of_texts() -> None:
    for request in (embedding_pb2.EmbedRequest, embedding_pb2.EmbedSparseRequest):
        found = texts.decode_single_texts(request(token_ids=[ids(5, 6), ids()]), LIMITS)
        assert found == [TokenIds([5, 6]), TokenIds([])]
        assert texts.decode_single_texts(request(texts=["a", ""]), LIMITS) == ["a", ""]
    pairs = [scoring_pb2.TokenIdPair(first=ids(1), second=ids(2, 3)), scoring_pb2.TokenIdPair()]
    assert texts.decode_token_pairs("pairs", pairs, LIMITS) == [
        (TokenIds([1]), TokenIds([2, 3])),
        (TokenIds([]), TokenIds([])),
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, r"^texts: empty; give at least one"),
        ({"texts": ["a"], "token_ids": [ids(1)]}, r"^token_ids: set together with texts; give one of them"),
        ({"token_ids": [ids(1)] * 4}, r"^token_ids: 4 exceed --max-items 3"),
        ({"token_ids": [ids(1), ids(1, 2, 3)]}, r"^token_ids\[1\]: 3 token ids of 4 bytes exceed --max-text-bytes 8"),
        ({"token_ids": [ids(), ids(7, 2**31)]}, r"^token_ids\[1\]\.ids\[1\]: 2147483648 is no token id"),
    ],
)
def test_what_cannot_be_embedded_is_refused(request_: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        texts.decode_single_texts(embedding_pb2.EmbedRequest(**request_), LIMITS)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], r"^pairs: empty"),
        ([scoring_pb2.TokenIdPair()] * 4, r"^pairs: 4 exceed"),
        ([scoring_pb2.TokenIdPair(second=ids(1, 2, 3))], r"^pairs\[0\]\.second: 3 token ids"),
        ([scoring_pb2.TokenIdPair(first=ids(2**32 - 1))], r"^pairs\[0\]\.first\.ids\[0\]: 4294967295 is no token id"),
    ],
)
def test_what_cannot_be_scored_is_refused(pairs: list[scoring_pb2.TokenIdPair], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        texts.decode_token_pairs("pairs", pairs, LIMITS)


@pytest.mark.parametrize("count", [128, 129])
def test_token_ids_count_four_bytes_in_all_texts_together(count: int) -> None:
    limits = RequestLimits(max_text_bytes=8, max_message_bytes=1024)
    singles = embedding_pb2.EmbedRequest(token_ids=[ids(1, 2)] * count)
    pairs = [scoring_pb2.TokenIdPair(first=ids(1), second=ids(2))] * count
    if count == 128:
        assert len(texts.decode_single_texts(singles, limits)) == len(texts.decode_token_pairs("p", pairs, limits))
        return
    words = "258 token ids of 4 bytes in all exceed --max-message-bytes 1024; send several smaller requests"
    with pytest.raises(InvalidInput, match=f"^token_ids: {words}"):
        texts.decode_single_texts(singles, limits)
    with pytest.raises(InvalidInput, match=f"^pairs: {words}"):
        texts.decode_token_pairs("pairs", pairs, limits)


def test_a_prompt_counts_once_for_every_row() -> None:
    request = scoring_pb2.RerankRequest(prompt="12345678")
    texts.check_prompt(request.prompt, 128, LIMITS)
    texts.check_prompt("", 10**9, LIMITS)
    with pytest.raises(InvalidInput, match=r"^prompt: 8 bytes before each of 129 texts exceed --max-message-byt"):
        texts.check_prompt(request.prompt, 129, LIMITS)
    with pytest.raises(InvalidInput, match=r"^prompt: 9 bytes exceed --max-text-bytes 8"):
        texts.check_prompt("123456789", 1, LIMITS)
