"""The fixed shapes of packed batches, and the one buffer in which a batch travels to the device. Knows arrays only.

A graph that is captured for a GPU runs one shape only, and a shape is (tokens, rows, length): how many tokens there
are, how many rows at most, and how many tokens a row has at most. Few shapes are enough, because rows of any lengths
share a batch: what is padded is the end of the batch, not each row.

A batch is put into its shape so: rows that only fill it come first and are empty, then those with text, then as many
rows of padding as hold the tokens that are left. So every token belongs to a row and every row begins at a token, and
no value of the result is computed from memory that nobody has written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np

from .base import Float32Array, Int32Array, Runtime, TokenBatch

POSITION_IDS = "position_ids"
CUMULATIVE_LENGTHS = "cumulative_lengths"
TOKEN_OFFSET = "token_offset"
"""Inputs of a packed graph besides the ids; `pairwire.export.passes.packed` says what they are."""
MOST_TOKENS = 1 << 16
"""Most tokens of a packed batch."""
SHORT = 128
"""Rows of at most N tokens have shapes of their own: attention starts a block of threads for each 128 tokens that
a row may have."""
_STEPS = ((256, 64), (512, 128), (1024, 256), (2048, 512), (MOST_TOKENS, 1024))
"""(up to this many tokens, step)"""
_TOKENS_OF_A_ROW = 16
_ALIGNED = 64
"""Numbers: the parts of the buffer begin at multiples of 256 bytes, as CUDA's own allocations do."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows one after the other, without padding. The runtime only reads it."""

    input_ids: Int32Array
    """[tokens] token ids of all rows."""
    token_type_ids: Int32Array
    """[tokens]"""
    lengths: Int32Array
    """[rows] tokens of each row, special tokens included; at least 1."""

    @property
    def rows(self) -> int:
        """Rows with text."""
        return len(self.lengths)

    @classmethod
    def of(cls, batch: TokenBatch) -> PackedBatch:
        """The same rows without their padding; rows without tokens become one token of padding."""
        lengths = np.maximum(batch.lengths, 1)
        inside = np.arange(batch.length, dtype=np.int32) < lengths[:, None]
        return cls(batch.input_ids[inside], batch.token_type_ids[inside], lengths)


@dataclass(frozen=True, order=True, slots=True)
class PackedShape:
    """What a captured graph is made for."""

    length: int
    """Most tokens of a row."""
    tokens: int
    rows: int
    """All of them, those that only fill the shape included."""

    @property
    def size(self) -> int:
        """Numbers of the buffer."""
        return 3 * self._part + self.rows + 1

    @property
    def _part(self) -> int:
        return -(-self.tokens // _ALIGNED) * _ALIGNED

    def begins(self) -> tuple[int, int, int, int]:
        """Where input_ids, token_type_ids, position_ids and cumulative_lengths begin in the buffer."""
        return 0, self._part, 2 * self._part, 3 * self._part

    def stage(self, batch: PackedBatch, pad_token_id: int = 0) -> Int32Array:
        """[size] int32, the buffer with the batch in it. The batch must fit."""
        ids, types, positions, cumulative = self.begins()
        buffer = np.zeros(self.size, dtype=np.int32)
        lengths = self.row_lengths(batch.lengths)
        used = len(batch.input_ids)
        buffer[ids : ids + used] = batch.input_ids
        buffer[ids + used : ids + self.tokens] = pad_token_id
        buffer[types : types + used] = batch.token_type_ids
        np.cumsum(lengths, out=buffer[cumulative + 1 : cumulative + 1 + self.rows])
        starts = buffer[cumulative : cumulative + self.rows]
        buffer[positions : positions + self.tokens] = np.arange(self.tokens, dtype=np.int32) - np.repeat(
            starts, lengths
        )
        return buffer

    def row_lengths(self, lengths: Int32Array) -> Int32Array:
        """[rows] tokens of each row of the shape."""
        left = self.tokens - int(lengths.sum())
        tail = self._tail(left)
        result = np.zeros(self.rows, dtype=np.int32)
        result[self.rows - tail - len(lengths) : self.rows - tail] = lengths
        if tail:
            result[self.rows - tail :] = self.length
            result[self.rows - 1] = left - (tail - 1) * self.length
        return result

    def first_row(self, batch: PackedBatch) -> int:
        """Where the rows with text begin."""
        return self.rows - batch.rows - self._tail(self.tokens - int(batch.lengths.sum()))

    def holds(self, tokens: int, rows: int) -> bool:
        """Whether this many rows with this many tokens together fit, none of them longer than ``length``."""
        return tokens <= self.tokens and rows + self._tail(self.tokens - tokens) <= self.rows

    def token_offset(self, lengths: Int32Array) -> Int32Array:
        """[rows, length] int32: places in padded rows, those of tokens first, as the operator's specification says."""
        places = np.arange(self.rows * self.length, dtype=np.int32).reshape(self.rows, self.length)
        inside = np.arange(self.length, dtype=np.int32) < lengths[:, None]
        return np.concatenate([places[inside], places[~inside]]).reshape(self.rows, self.length)

    def _tail(self, tokens: int) -> int:
        return -(-tokens // self.length)


class PackedShapes:
    """All shapes of a model."""

    def __init__(self, *, longest: int, most_tokens: int) -> None:
        """For rows of up to ``longest`` tokens and batches of up to ``most_tokens``, or one row if that is more."""
        top = min(MOST_TOKENS, max(most_tokens, longest))
        self.tokens = tuple(_ladder(top))
        """Ascending numbers of tokens."""
        self.lengths = (SHORT, longest) if longest > SHORT else (longest,)
        """Ascending lengths of the longest row."""
        self.most_rows = max(1, top // _TOKENS_OF_A_ROW)
        """Most rows with text of a batch."""

    def __iter__(self) -> Iterator[PackedShape]:
        """Every shape, the largest first: memory is at its height from the start."""
        for length in reversed(self.lengths):
            for tokens in reversed(self.tokens):
                yield self._shape(tokens, length)

    def fit(self, tokens: int, rows: int, longest: int) -> PackedShape:
        """The smallest shape that holds the batch.

        Raises:
            ValueError: none does.
        """
        if longest <= self.lengths[-1]:
            length = self.lengths[bisect_left(self.lengths, longest)]
            for at in range(bisect_left(self.tokens, tokens), len(self.tokens)):
                shape = self._shape(self.tokens[at], length)
                if shape.holds(tokens, rows):
                    return shape
        raise ValueError(
            f"a batch of {rows} rows with {tokens} tokens, the longest of {longest}, is larger than the largest shape: "
            f"{self.most_rows} rows with {self.tokens[-1]} tokens, the longest of {self.lengths[-1]}"
        )

    @staticmethod
    def _shape(tokens: int, length: int) -> PackedShape:
        rows = tokens // _TOKENS_OF_A_ROW + -(-tokens // length) + 1
        return PackedShape(length=length, tokens=tokens, rows=rows)


def _ladder(top: int) -> Iterator[int]:
    at = 0
    while at < top:
        at = min(top, at + next(step for limit, step in _STEPS if at < limit))
        yield at


class PackedRuntime(Runtime, Protocol):
    """A runtime that computes no padding: rows stand one after the other."""

    @property
    def shapes(self) -> PackedShapes:
        """The shapes of its batches."""
        ...

    def run_packed(self, batch: PackedBatch) -> Float32Array:
        """[rows, outputs] float32, as ``run``."""
        ...


def is_packed(runtime: Runtime | PackedRuntime) -> TypeGuard[PackedRuntime]:
    """Whether a runtime computes no padding between rows. Cheap: it is asked for every batch."""
    return hasattr(runtime, "run_packed")
