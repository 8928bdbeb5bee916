"""Text -> token ids -> rows: tokenises, truncates exactly as the checkpoint's tokenizer would, and assembles batches.

Each text is tokenised alone, without special tokens, and pairs are put together from the ids. That is exact because a
fast tokenizer treats the two texts of a pair independently until its post-processor adds the special tokens; what it
adds is read off the tokenizer itself (`Template`), so that any post-processor works. One query with n documents costs n
+ 1 tokenisations instead of 2 n.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from ..errors import InvalidInput
from ..runtime.base import Int32Array, TokenBatch


class Truncation(Enum):
    """What happens to an input that is longer than the limit."""

    LONGEST_FIRST = "longest_first"
    ONLY_SECOND = "only_second"
    ERROR = "error"


_NOTHING: Int32Array = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class TextRules:
    """The checkpoint's own rules for text, from the manifest."""

    max_length: int
    """Most tokens of a row, special tokens included."""
    pad_token_id: int = 0
    pad_token_type_id: int = 0
    truncate_left: bool = False
    """Cut the beginning of a too long text, not its end."""


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the content of a row. Ids int32; ``middle`` is empty for single texts."""

    prefix: Int32Array
    middle: Int32Array
    suffix: Int32Array
    types: Int32Array
    """Token types of the row's parts, in order: each special token is a part, and so is each text."""
    counts: tuple[int, ...]
    """Tokens of each part: 1, and 0 for the texts, whose number of tokens differs from row to row."""
    first: int
    """Which part is the first text."""
    second: int
    """Which part is the second text; where there is none, an empty one."""

    @property
    def special_tokens(self) -> int:
        """Tokens that a row has beside its content."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The rows of one request, tokenised and cut, ready to be assembled in any grouping.

    Row i is ``first[first_index[i]][:first_cut[i]]`` with ``second[i][:second_cut[i]]`` (from the other side where the
    rules truncate left) inside ``template``; ``second`` is None for single texts.
    """

    template: Template
    first: Sequence[Int32Array]
    first_index: Int32Array
    """[rows]: which of ``first``; all 0 for one query with many documents."""
    second: Sequence[Int32Array] | None
    first_cut: Int32Array
    second_cut: Int32Array
    lengths: Int32Array
    """[rows] tokens after truncation, special tokens included."""
    truncated: Int32Array
    """Ascending indices of the rows that were cut."""

    def __len__(self) -> int:
        return len(self.lengths)


class TextEncoder:
    """A checkpoint's tokenizer with its truncation and pair rules. Thread-safe; the tokenizer releases the GIL."""

    def __init__(self, tokenizer: Tokenizer, rules: TextRules) -> None:
        # The library's own threads take longer to wake than a text takes to tokenise, and take cores from the workers;
        # callers tokenise several requests at once instead. Whoever has set this variable knows better.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.rules = rules
        self._tokenizer = tokenizer
        self._single = _read_template(tokenizer.encode("a"))
        self._pair = _read_template(tokenizer.encode("a", "b"))

    @classmethod
    def from_file(cls, path: Path, rules: TextRules) -> TextEncoder:
        """Reads a tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)), rules)

    def encode_pairs(
        self,
        firsts: Sequence[str],
        seconds: Sequence[str],
        *,
        max_length: int | None = None,
        truncation: Truncation = Truncation.LONGEST_FIRST,
        fields: tuple[str, str] = ("pairs[{}].first", "pairs[{}].second"),
    ) -> EncodedRows:
        """Rows of ``zip(firsts, seconds)``; a single first stands for one query with many documents.

        ``fields`` are the names under which the caller knows the texts, for error messages.

        Raises:
            InvalidInput: not Unicode text, ``max_length`` out of range, or a text that does not fit and may not be cut.
        """
        if len(firsts) not in (1, len(seconds)):
            raise ValueError(f"{len(firsts)} first texts for {len(seconds)} second texts")
        limit = self._limit(max_length, self._pair)
        _check_texts(firsts, fields[0])
        _check_texts(seconds, fields[1])
        ids = self.tokenize([*firsts, *seconds])
        first, second = ids[: len(firsts)], ids[len(firsts) :]
        first_index = np.zeros(len(second), np.int32) if len(first) == 1 else np.arange(len(second), dtype=np.int32)
        first_lengths = np.fromiter(map(len, first), np.int32, len(first))[first_index]
        second_lengths = np.fromiter(map(len, second), np.int32, len(second))
        room = limit - self._pair.special_tokens
        over = first_lengths + second_lengths > room
        first_cut, second_cut = first_lengths, second_lengths
        if over.any():
            if truncation is Truncation.ERROR:
                self._refuse(over, first_lengths + second_lengths + self._pair.special_tokens, limit, fields[1])
            if truncation is Truncation.ONLY_SECOND:
                first_cut, second_cut = self._cut_second(first_lengths, second_lengths, limit, fields[0])
            else:
                first_cut, second_cut = longest_first(first_lengths, second_lengths, room)
        return EncodedRows(
            template=self._pair,
            first=first,
            first_index=first_index,
            second=second,
            first_cut=first_cut,
            second_cut=second_cut,
            lengths=(first_cut + second_cut + self._pair.special_tokens).astype(np.int32),
            truncated=np.flatnonzero(over).astype(np.int32),
        )

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        truncation: Truncation = Truncation.LONGEST_FIRST,
        field: str = "texts[{}]",
    ) -> EncodedRows:
        """Rows of single texts, ``prompt`` put before each.

        Raises:
            InvalidInput: as ``encode_pairs``; ``ONLY_SECOND`` makes no sense here and is refused too.
        """
        if truncation is Truncation.ONLY_SECOND:
            raise InvalidInput("truncation", "only_second needs pairs; use longest_first or error for single texts")
        limit = self._limit(max_length, self._single)
        _check_texts(texts, field)
        ids = self.tokenize([prompt + text for text in texts] if prompt else texts)
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        room = limit - self._single.special_tokens
        over = lengths > room
        if truncation is Truncation.ERROR and over.any():
            self._refuse(over, lengths + self._single.special_tokens, limit, field)
        cut = np.minimum(lengths, room).astype(np.int32)
        return EncodedRows(
            template=self._single,
            first=ids,
            first_index=np.arange(len(ids), dtype=np.int32),
            second=None,
            first_cut=cut,
            second_cut=np.zeros(len(ids), np.int32),
            lengths=(cut + self._single.special_tokens).astype(np.int32),
            truncated=np.flatnonzero(over).astype(np.int32),
        )

    def tokenize(self, texts: Sequence[str]) -> list[Int32Array]:
        """Content ids int32 of each text, without special tokens and uncut. Raises TypeError on invalid Unicode."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def assemble(
        self, rows: Sequence[tuple[EncodedRows, int]], length: int, *, total_rows: int | None = None
    ) -> TokenBatch:
        """One batch of shape [``total_rows`` or len(rows), ``length``] from rows of any requests of this model."""
        height = total_rows or len(rows)
        ids: list[Int32Array] = []
        types: list[Int32Array] = []
        counts: list[int] = []
        lengths = np.zeros(height, np.int32)
        for at, (encoded, index) in enumerate(rows):
            template = encoded.template
            lengths[at] = encoded.lengths[index]
            first = self._cut(encoded.first[encoded.first_index[index]], int(encoded.first_cut[index]))
            second = _NOTHING
            if encoded.second is not None:
                second = self._cut(encoded.second[index], int(encoded.second_cut[index]))
            ids += (template.prefix, first, template.middle, second, template.suffix)
            types.append(template.types)
            counts += template.counts
            counts[template.first - len(template.counts)] = len(first)
            counts[template.second - len(template.counts)] = len(second)
        # All rows are written at once: the mask's true cells, in row-major order, are the rows' tokens in a line.
        inside = np.arange(length, dtype=np.int32) < lengths[:, None]
        input_ids = np.full((height, length), self.rules.pad_token_id, np.int32)
        input_ids[inside] = np.concatenate(ids)
        token_type_ids = np.full((height, length), self.rules.pad_token_type_id, np.int32)
        token_type_ids[inside] = np.repeat(np.concatenate(types), counts)
        return TokenBatch(input_ids=input_ids, token_type_ids=token_type_ids, lengths=lengths)

    def blank(self, rows: int, length: int) -> TokenBatch:
        """A batch [rows, length] of full rows without meaning, to warm and to measure a runtime with."""
        shape = (rows, length)
        return TokenBatch(
            input_ids=np.full(shape, self.rules.pad_token_id, np.int32),
            token_type_ids=np.full(shape, self.rules.pad_token_type_id, np.int32),
            lengths=np.full(rows, length, np.int32),
        )

    def _cut(self, ids: Int32Array, keep: int) -> Int32Array:
        return ids[len(ids) - keep :] if self.rules.truncate_left else ids[:keep]

    def _limit(self, max_length: int | None, template: Template) -> int:
        limit = max_length or self.rules.max_length
        if limit > self.rules.max_length:
            raise InvalidInput("max_length", f"{limit} is more than this model reads; at most {self.rules.max_length}")
        if limit <= template.special_tokens:
            raise InvalidInput("max_length", f"{limit} leaves no room for text; at least {template.special_tokens + 1}")
        return limit

    @staticmethod
    def _refuse(over: np.ndarray, lengths: np.ndarray, limit: int, field: str) -> None:
        index = int(np.flatnonzero(over)[0])
        raise InvalidInput(
            field.format(index),
            f"{lengths[index]} tokens with special tokens exceed max_length {limit}; "
            "shorten the text, raise max_length, or let it be cut (truncation longest_first)",
        )

    def _cut_second(
        self, first: Int32Array, second: Int32Array, limit: int, field: str
    ) -> tuple[Int32Array, Int32Array]:
        room = limit - self._pair.special_tokens
        too_long = first > room
        if too_long.any():
            self._refuse(too_long, first + self._pair.special_tokens, limit, field)
        return first, np.minimum(second, room - first).astype(np.int32)


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


def _read_template(encoding: Encoding) -> Template:
    """The special tokens around the probe's content: before the first text, between the texts, after the last."""
    ids: list[list[int]] = [[], [], []]
    types: list[list[int]] = [[], [], []]
    text_types = [[0], [0]]
    seen = 0
    for token, token_type, sequence, special in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.special_tokens_mask, strict=True
    ):
        if special:
            ids[seen].append(token)
            types[seen].append(token_type)
        else:
            seen = (sequence or 0) + 1
            text_types[seen - 1] = [token_type]
    if seen == 1:  # a single text: what follows it ends the row
        ids, types = [ids[0], [], ids[1]], [types[0], [], types[1]]
    prefix, middle, suffix = (np.array(section, dtype=np.int32) for section in ids)
    first, second = len(prefix), len(prefix) + 1 + len(middle)
    parts = [*types[0], *text_types[0], *types[1], *text_types[1], *types[2]]
    counts = tuple(0 if at in (first, second) else 1 for at in range(len(parts)))
    return Template(prefix, middle, suffix, np.array(parts, dtype=np.int32), counts, first, second)


def _check_texts(texts: Sequence[str], pattern: str) -> None:
    """Before the tokenizer sees them: it takes a tuple for a pair, and says of a bad text neither which nor why."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(pattern.format(index), f"expected text, got {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                pattern.format(index),
                f"not valid Unicode: a lone surrogate at character {error.start}; replace it, e.g. with U+FFFD",
            ) from None
