"""What is cut off an input that is longer than the limit."""

from __future__ import annotations

from enum import Enum

import numpy as np

from ..runtime.base import Int32Array


class Truncation(Enum):
    """What happens to an input that is longer than the limit."""

    LONGEST_FIRST = "longest_first"
    ONLY_SECOND = "only_second"
    ERROR = "error"


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
