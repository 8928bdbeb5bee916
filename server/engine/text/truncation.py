"""What is cut off an input that is longer than the limit, and what may not be cut."""

from __future__ import annotations

from enum import Enum

import numpy as np

from ...errors import InvalidInput
from ...runtime.base import Int32Array


class Truncation(Enum):
    """What happens to an input that is longer than the limit."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    ERROR = "error"


class TruncationDirection(Enum):
    """The side at which a too long input loses tokens."""

    RIGHT = "right"
    """Its end goes."""
    LEFT = "left"
    """Its beginning goes; of a pair, the beginnings of both texts."""


def longest_first(first: Int32Array, second: Int32Array, room: int) -> tuple[Int32Array, Int32Array]:
    """Content lengths int32 [rows] after the ``longest_first`` truncation of HuggingFace tokenizers to ``room``.

    Source: tokenizers, `truncate_encodings` in src/utils/truncation.rs.
    """
    short, long = np.minimum(first, second), np.maximum(first, second)
    kept_long = np.where(short > room, short, np.maximum(short, room - short))
    both_cut = short + kept_long > room
    kept_short = np.where(both_cut, room // 2, short)
    kept_long = np.where(both_cut, room // 2 + room % 2, kept_long)
    fits = first + second <= room
    kept_short, kept_long = np.where(fits, short, kept_short), np.where(fits, long, kept_long)
    swapped = first > second
    kept_first = np.where(swapped, kept_long, kept_short)
    kept_second = np.where(swapped, kept_short, kept_long)
    return np.minimum(kept_first, first).astype(np.int32), np.minimum(kept_second, second).astype(np.int32)


def limit_of(max_length: int | None, most: int, taken: int) -> int:
    """Tokens of a row: what is asked for, or else the ``most`` that the model reads; ``taken`` of them are no text.

    Raises:
        InvalidInput: more than the model reads, or no room for text.
    """
    limit = max_length or most
    if limit > most:
        raise InvalidInput("max_length", f"{limit} is more than this model reads; at most {most}")
    if limit <= taken:
        raise InvalidInput("max_length", f"{limit} leaves no room for text; at least {taken + 1}")
    return limit


def refuse(index: int, length: int, limit: int, field: str) -> None:
    """Raises InvalidInput: an input of ``length`` tokens does not fit and may not be cut; ``field`` takes its index."""
    raise InvalidInput(
        field.format(index),
        f"{length} tokens with special tokens exceed max_length {limit}; "
        "shorten the text, raise max_length, or let it be cut (truncation longest_first)",
    )


def refuse_empty(lengths: Int32Array, field: str) -> None:
    """Raises InvalidInput: a row has no token, on which sentence-transformers fails; ``field`` takes its index."""
    if not lengths.all():
        index = int(np.argmin(lengths))
        raise InvalidInput(
            field.format(index), "no token is left of it, and this model puts none around a text; give text"
        )
