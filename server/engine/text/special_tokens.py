"""What a tokenizer puts around the content of a row; read off the tokenizer, so that any post-processor works."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from .token_ids import ID_BYTES as ID_BYTES

Row = tuple[bytes, int, int]
"""A row as it is run: its token ids (int32 each), special tokens included, how many of them come before the middle, and
how many at the beginning pooling leaves out.

Within a model, equal rows are the same input: the ids are what the graph reads, the numbers tell its token types and
what it pools. It is a value of plain bytes because rows are joined, compared and hashed far more often than they are
computed with.
"""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What stands around the content of a row; ``middle`` is empty for single texts."""

    prefix: bytes
    """Token ids, as in a row."""
    middle: bytes
    suffix: bytes
    head_types: bytes
    """Token types, a byte each, of a row up to its middle, as if the first text were as long as texts can be."""
    tail_types: bytes
    """Of the middle and the second text, likewise."""
    end_types: bytes
    """Of the suffix."""

    @property
    def special_tokens(self) -> int:
        """Tokens that a row has besides its content."""
        return (len(self.prefix) + len(self.middle) + len(self.suffix)) // ID_BYTES

    def row(self, first: bytes, second: bytes = b"", left_out: int = 0) -> Row:
        """The row of two contents, already cut, of which pooling leaves out the first tokens."""
        ids = b"".join((self.prefix, first, self.middle, second, self.suffix))
        return ids, (len(self.prefix) + len(first)) // ID_BYTES, left_out

    def types(self, tokens: int, split: int) -> tuple[bytes, bytes, bytes]:
        """The token types of a row of this many tokens, in three pieces, a byte a token."""
        end = self.end_types
        return self.head_types[:split], self.tail_types[: tokens - split - len(end)], end


def no_special_tokens(max_length: int) -> SpecialTokens:
    """Nothing around the content of a single text, whose tokens are all of type 0."""
    return SpecialTokens(b"", b"", b"", head_types=bytes(max_length), tail_types=b"", end_types=b"")


def read_special_tokens(encoding: Encoding, max_length: int) -> SpecialTokens:
    """The special tokens around the probe's content: before the first text, between the texts, after the last.

    ``max_length`` is the most tokens that a text may keep.
    """
    ids: list[list[int]] = [[], [], []]
    types: list[list[int]] = [[], [], []]
    text_types = [0, 0]
    seen = 0
    for token, token_type, sequence, special in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.special_tokens_mask, strict=True
    ):
        if special:
            ids[seen].append(token)
            types[seen].append(token_type)
        else:
            seen = (sequence or 0) + 1
            text_types[seen - 1] = token_type
    if seen == 1:  # a single text: what follows it ends the row
        ids, types = [ids[0], [], ids[1]], [types[0], [], types[1]]
    prefix, middle, suffix = (np.array(section, dtype=np.int32).tobytes() for section in ids)
    return SpecialTokens(
        prefix=prefix,
        middle=middle,
        suffix=suffix,
        head_types=bytes(types[0]) + bytes([text_types[0]]) * max_length,
        tail_types=bytes(types[1]) + bytes([text_types[1]]) * max_length,
        end_types=bytes(types[2]),
    )
