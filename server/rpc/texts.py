"""The texts of a request -> plain values, with every check that needs no model; pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from pairwire.v1 import embedding_pb2, scoring_pb2

from ..config import RequestLimits
from ..engine.text.token_ids import ID_BYTES, Text, TokenIds
from ..errors import InvalidInput

Prompted: TypeAlias = (
    scoring_pb2.ScoreRequest | scoring_pb2.RerankRequest | embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest
)
"""Requests that may have a prompt."""
_MOST_BYTES_OF_A_CHARACTER = 4


def decode_texts(field: str, texts: Sequence[str], limits: RequestLimits) -> list[str]:
    """A list of texts.

    Raises:
        InvalidInput: none, too many, or one that is too long.
    """
    _check_count(field, len(texts), limits)
    decoded = list(texts)
    _check_sizes(decoded, limits, lambda index: f"{field}[{index}]")
    return decoded


def decode_text(field: str, text: str, limits: RequestLimits) -> str:
    """One text.

    Raises:
        InvalidInput: it is too long.
    """
    _check_sizes((text,), limits, lambda _: field)
    return text


def decode_pairs(field: str, pairs: Sequence[scoring_pb2.TextPair], limits: RequestLimits) -> list[tuple[str, str]]:
    """Pairs of texts.

    Raises:
        InvalidInput: none, too many, or a text that is too long.
    """
    _check_count(field, len(pairs), limits)
    decoded = [(pair.first, pair.second) for pair in pairs]
    _check_sizes([first for first, _ in decoded], limits, lambda index: f"{field}[{index}].first")
    _check_sizes([second for _, second in decoded], limits, lambda index: f"{field}[{index}].second")
    return decoded


def decode_token_pairs(
    field: str, pairs: Sequence[scoring_pb2.TokenIdPair], limits: RequestLimits
) -> list[tuple[TokenIds, TokenIds]]:
    """Pairs of texts that are tokenised already.

    Raises:
        InvalidInput: none, too many, one that is too long, or something that cannot be a token id.
    """
    _check_count(field, len(pairs), limits)
    _check_all_ids(field, (ids for pair in pairs for ids in (pair.first, pair.second)), limits)
    return [
        (
            decode_ids(f"{field}[{index}].first", pair.first.ids, limits),
            decode_ids(f"{field}[{index}].second", pair.second.ids, limits),
        )
        for index, pair in enumerate(pairs)
    ]


def decode_single_texts(
    request: embedding_pb2.EmbedRequest | embedding_pb2.EmbedSparseRequest, limits: RequestLimits
) -> list[Text]:
    """What is to be embedded: texts, or token ids in their place.

    Raises:
        InvalidInput: both, neither, or as ``decode_texts`` and ``decode_token_pairs``.
    """
    if not request.token_ids:
        return list[Text](decode_texts("texts", request.texts, limits))
    if request.texts:
        raise InvalidInput(
            "token_ids", "set together with texts; give one of them, and the other in a request of its own"
        )
    _check_count("token_ids", len(request.token_ids), limits)
    _check_all_ids("token_ids", request.token_ids, limits)
    return [decode_ids(f"token_ids[{index}]", ids.ids, limits) for index, ids in enumerate(request.token_ids)]


def decode_id_lists(field: str, lists: Sequence[Sequence[int]], limits: RequestLimits) -> list[TokenIds]:
    """Texts that are tokenised already, as lists of ids; ``field`` is what the caller calls all of them.

    Raises:
        InvalidInput: none, too many, one that is too long, or something that cannot be a token id.
    """
    _check_count(field, len(lists), limits)
    _check_ids(field, sum(map(len, lists)), limits)
    return [decode_ids(f"{field}[{index}]", ids, limits) for index, ids in enumerate(lists)]


def check_prompt(prompt: str, rows: int, limits: RequestLimits) -> None:
    """A prompt is sent once and read with each row: a small message must not become gigabytes of text.

    Raises:
        InvalidInput: it is too long, by itself or before this many rows.
    """
    if not prompt:
        return
    _check_sizes((prompt,), limits, lambda _: "prompt")
    size = len(prompt.encode("utf-8"))
    if size * rows > limits.max_message_bytes:
        raise InvalidInput(
            "prompt",
            f"{size} bytes before each of {rows} texts exceed --max-message-bytes {limits.max_message_bytes}; "
            "shorten it, or send several smaller requests",
        )


def decode_ids(field: str, ids: Sequence[int], limits: RequestLimits) -> TokenIds:
    """The token ids of one text.

    Raises:
        InvalidInput: they are too many, or something that cannot be a token id.
    """
    size = ID_BYTES * len(ids)
    if size > limits.max_text_bytes:
        raise InvalidInput(
            field,
            f"{len(ids)} token ids of {ID_BYTES} bytes exceed --max-text-bytes {limits.max_text_bytes}; "
            "shorten or split the text",
        )
    return TokenIds(ids, field=field)


def _check_all_ids(field: str, texts: Iterable[scoring_pb2.TokenIds], limits: RequestLimits) -> None:
    """An id takes a byte of a message and four of memory, before anything else is made of it."""
    _check_ids(field, sum(len(ids.ids) for ids in texts), limits)


def _check_ids(field: str, count: int, limits: RequestLimits) -> None:
    if ID_BYTES * count > limits.max_message_bytes:
        raise InvalidInput(
            field,
            f"{count} token ids of {ID_BYTES} bytes in all exceed --max-message-bytes {limits.max_message_bytes}; "
            "send several smaller requests",
        )


def _check_count(field: str, count: int, limits: RequestLimits) -> None:
    if not count:
        raise InvalidInput.empty(field)
    if count > limits.max_items:
        raise InvalidInput(field, f"{count} exceed --max-items {limits.max_items}; send several smaller requests")


def _check_sizes(texts: Sequence[str], limits: RequestLimits, name: Callable[[int], str]) -> None:
    # Counting bytes means encoding: only where the number of characters leaves a doubt.
    if max(map(len, texts)) * _MOST_BYTES_OF_A_CHARACTER <= limits.max_text_bytes:
        return
    for index, text in enumerate(texts):
        size = len(text.encode("utf-8"))
        if size > limits.max_text_bytes:
            raise InvalidInput(
                name(index), f"{size} bytes exceed --max-text-bytes {limits.max_text_bytes}; shorten or split the text"
            )
