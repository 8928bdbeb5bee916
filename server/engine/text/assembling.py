"""Rows of any requests of a model -> one batch, padded or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runtime.base import TokenBatch
from ...runtime.packed import PackedBatch
from .rows import EncodedRows
from .rules import TextRules
from .special_tokens import ID_BYTES


class Assembler:
    """Puts rows together, as the rules of a checkpoint say."""

    def __init__(self, rules: TextRules) -> None:
        self.rules = rules
        self._pad_id = np.int32(rules.pad_token_id).tobytes()
        self._pad_type = bytes([rules.pad_token_type_id])

    def assemble(
        self, rows: Sequence[tuple[EncodedRows, int]], length: int, *, total_rows: int | None = None
    ) -> TokenBatch:
        """One batch of shape [``total_rows`` or len(rows), ``length``] from rows of any requests of this model.

        Its ids are read-only.
        """
        padding, pad_types = self._pad_id * length, self._pad_type * length
        ids: list[bytes] = []
        types: list[bytes] = []
        sizes: list[int] = []
        for encoded, index in rows:
            row, split, _ = encoded.rows[index]
            size = len(row)
            tokens = size // ID_BYTES
            ids += (row, padding[size:])
            types += (*encoded.special.types(tokens, split), pad_types[tokens:])
            sizes.append(tokens)
        height = total_rows or len(rows)
        if blank := height - len(rows):
            ids.append(padding * blank)
            types.append(pad_types * blank)
            sizes += [0] * blank
        shape = (height, length)
        input_ids = np.frombuffer(b"".join(ids), np.int32).reshape(shape)
        token_type_ids = np.frombuffer(b"".join(types), np.uint8).reshape(shape).astype(np.int32)
        lengths = np.array(sizes, np.int32)
        if not self.rules.prompt_excluded:
            return TokenBatch(input_ids, token_type_ids, lengths)
        left_out = [encoded.rows[index][2] for encoded, index in rows] + [0] * blank
        return TokenBatch(input_ids, token_type_ids, lengths, np.array(left_out, np.int32))

    def pack(self, rows: Sequence[tuple[EncodedRows, int]]) -> PackedBatch:
        """One batch of rows of any requests of this model, one after the other. Its ids are read-only."""
        ids: list[bytes] = []
        types: list[bytes] = []
        sizes: list[int] = []
        for encoded, index in rows:
            row, split, _ = encoded.rows[index]
            tokens = len(row) // ID_BYTES
            ids.append(row)
            types += encoded.special.types(tokens, split)
            sizes.append(tokens)
        return PackedBatch(
            input_ids=np.frombuffer(b"".join(ids), np.int32),
            token_type_ids=np.frombuffer(b"".join(types), np.uint8).astype(np.int32),
            lengths=np.array(sizes, np.int32),
        )

    def blank(self, rows: int, length: int, id: int | None = None) -> TokenBatch:
        """A batch [rows, length] of full rows without meaning, to warm and to measure a runtime with.

        It has nothing but padding in it, or ``id``.
        """
        shape = (rows, length)
        return TokenBatch(
            input_ids=np.full(shape, self.rules.pad_token_id if id is None else id, np.int32),
            token_type_ids=np.full(shape, self.rules.pad_token_type_id, np.int32),
            lengths=np.full(rows, length, np.int32),
        )
