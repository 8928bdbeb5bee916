"""Text -> token ids -> rows: tokenises, truncates exactly as the checkpoint's tokenizer would, and assembles batches.

Each text is tokenised alone, without special tokens, and pairs are put together from the ids. That is exact because a
fast tokenizer treats the two texts of a pair independently until its post-processor adds the special tokens; what it
adds is read off the tokenizer itself (`template`). So one query with n documents costs n + 1 tokenisations instead of
2 n, a text that comes twice is tokenised once, and ids can be kept for the next request (`cache`): by a digest of the
text, so that no text outlives its request.
"""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..errors import InvalidInput
from ..runtime.base import Int32Array, PackedBatch, TokenBatch
from .cache import ByteCache
from .template import ID_BYTES, Row, Template, read_template
from .truncation import Truncation, longest_first

_DIGEST_BYTES = 16
"""Two of 2^48 texts share a digest with a probability of 2^-33."""
_OFF = ByteCache(0)
_NONE: Int32Array = np.zeros(0, dtype=np.int32)


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
class EncodedRows:
    """Rows that were asked for together, tokenised and cut, ready to be assembled in any grouping."""

    template: Template
    rows: Sequence[Row]
    """One for each input, in input order."""
    lengths: Int32Array
    """[rows] tokens after truncation, special tokens included."""
    truncated: Int32Array
    """Ascending indices of the rows that were cut."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum(dtype=np.int64))

    def subset(self, indices: Sequence[int]) -> EncodedRows:
        """Some of the rows, in the given order; which of them were cut is not told."""
        rows = [self.rows[index] for index in indices]
        return EncodedRows(self.template, rows, self.lengths[list(indices)], _NONE)


def join(parts: Sequence[EncodedRows]) -> EncodedRows:
    """The rows of at least one part, one after the other."""
    if len(parts) == 1:
        return parts[0]
    begins = [0, *itertools.accumulate(len(part) for part in parts[:-1])]
    return EncodedRows(
        template=parts[0].template,
        rows=[row for part in parts for row in part.rows],
        lengths=np.concatenate([part.lengths for part in parts]),
        truncated=np.concatenate([part.truncated + begin for part, begin in zip(parts, begins, strict=True)]).astype(
            np.int32
        ),
    )


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
        self._single = read_template(tokenizer.encode("a"), rules.max_length)
        self._pair = read_template(tokenizer.encode("a", "b"), rules.max_length)
        self._pad_id = np.int32(rules.pad_token_id).tobytes()
        self._pad_type = bytes([rules.pad_token_type_id])

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
        cache: ByteCache = _OFF,
    ) -> EncodedRows:
        """Rows of ``zip(firsts, seconds)``; a single first stands for one query with many documents.

        ``fields`` are the names under which the caller knows the texts, for error messages. ``cache`` belongs to this
        tokenizer alone.

        Raises:
            InvalidInput: not Unicode text, ``max_length`` out of range, or a text that does not fit and may not be cut.
        """
        if len(firsts) not in (1, len(seconds)):
            raise ValueError(f"{len(firsts)} first texts for {len(seconds)} second texts")
        template = self._pair
        limit = self._limit(max_length, template)
        check_texts(firsts, fields[0])
        check_texts(seconds, fields[1])
        ids = self.tokenize([*firsts, *seconds], cache)
        first, second = ids[: len(firsts)], ids[len(firsts) :]
        if len(first) < len(second):
            first *= len(second)
        lengths = np.array([len(a) + len(b) for a, b in zip(first, second, strict=True)], np.int32) // ID_BYTES
        room = limit - template.special_tokens
        over = np.flatnonzero(lengths > room).tolist() if int(lengths.max(initial=0)) > room else []
        if over:
            self._cut_pairs(first, second, over, limit, truncation, fields)
            lengths = np.minimum(lengths, room)
        return EncodedRows(
            template=template,
            rows=[template.row(a, b) for a, b in zip(first, second, strict=True)],
            lengths=(lengths + template.special_tokens).astype(np.int32),
            truncated=np.array(over, dtype=np.int32),
        )

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        truncation: Truncation = Truncation.LONGEST_FIRST,
        field: str = "texts[{}]",
        cache: ByteCache = _OFF,
    ) -> EncodedRows:
        """Rows of single texts, ``prompt`` put before each.

        Raises:
            InvalidInput: as ``encode_pairs``; ``ONLY_SECOND`` makes no sense here and is refused too.
        """
        if truncation is Truncation.ONLY_SECOND:
            raise InvalidInput("truncation", "only_second needs pairs; use longest_first or error for single texts")
        template = self._single
        limit = self._limit(max_length, template)
        check_texts(texts, field)
        ids = self.tokenize([prompt + text for text in texts] if prompt else texts, cache)
        lengths = np.array([len(each) for each in ids], np.int32) // ID_BYTES
        room = limit - template.special_tokens
        over = np.flatnonzero(lengths > room)
        if truncation is Truncation.ERROR and len(over):
            _refuse(int(over[0]), int(lengths[over[0]]) + template.special_tokens, limit, field)
        for index in over.tolist():
            ids[index] = self._cut(ids[index], room)
        return EncodedRows(
            template=template,
            rows=[template.row(each) for each in ids],
            lengths=(np.minimum(lengths, room) + template.special_tokens).astype(np.int32),
            truncated=over.astype(np.int32),
        )

    def tokenize(self, texts: Sequence[str], cache: ByteCache = _OFF) -> list[bytes]:
        """Content ids of each text, an int32 each, without special tokens and uncut; each distinct text once.

        Raises:
            TypeError: something is not text, or not valid Unicode.
        """
        if len(texts) == 2 and texts[0] != texts[1] and not cache:  # one pair, the commonest request of all
            return self._tokenize_new(list(texts))
        distinct = dict.fromkeys(texts, b"")
        if cache:
            keys = [blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest() for text in distinct]
            known = cache.get(keys)
            missing = []
            for text, key, ids in zip(distinct, keys, known, strict=True):
                if ids is None:
                    missing.append((text, key))
                else:
                    distinct[text] = ids
            if missing:
                new = self._tokenize_new([text for text, _ in missing])
                cache.put((key, ids) for (_, key), ids in zip(missing, new, strict=True))
                distinct.update((text, ids) for (text, _), ids in zip(missing, new, strict=True))
        else:
            distinct.update(zip(distinct, self._tokenize_new(list(distinct)), strict=True))
        return [distinct[text] for text in texts]

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
            row, split = encoded.rows[index]
            size = len(row)
            tokens = size // ID_BYTES
            ids += (row, padding[size:])
            types += (*encoded.template.types(tokens, split), pad_types[tokens:])
            sizes.append(tokens)
        height = total_rows or len(rows)
        if blank := height - len(rows):
            ids.append(padding * blank)
            types.append(pad_types * blank)
            sizes += [0] * blank
        shape = (height, length)
        return TokenBatch(
            input_ids=np.frombuffer(b"".join(ids), np.int32).reshape(shape),
            token_type_ids=np.frombuffer(b"".join(types), np.uint8).reshape(shape).astype(np.int32),
            lengths=np.array(sizes, np.int32),
        )

    def pack(self, rows: Sequence[tuple[EncodedRows, int]]) -> PackedBatch:
        """One batch of rows of any requests of this model, one after the other. Its ids are read-only."""
        ids: list[bytes] = []
        types: list[bytes] = []
        sizes: list[int] = []
        for encoded, index in rows:
            row, split = encoded.rows[index]
            tokens = len(row) // ID_BYTES
            ids.append(row)
            types += encoded.template.types(tokens, split)
            sizes.append(tokens)
        return PackedBatch(
            input_ids=np.frombuffer(b"".join(ids), np.int32),
            token_type_ids=np.frombuffer(b"".join(types), np.uint8).astype(np.int32),
            lengths=np.array(sizes, np.int32),
        )

    def blank(self, rows: int, length: int) -> TokenBatch:
        """A batch [rows, length] of full rows without meaning, to warm and to measure a runtime with."""
        shape = (rows, length)
        return TokenBatch(
            input_ids=np.full(shape, self.rules.pad_token_id, np.int32),
            token_type_ids=np.full(shape, self.rules.pad_token_type_id, np.int32),
            lengths=np.full(rows, length, np.int32),
        )

    def _tokenize_new(self, texts: Sequence[str]) -> list[bytes]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [array("i", encoding.ids).tobytes() for encoding in encodings]

    def _cut(self, ids: bytes, keep: int) -> bytes:
        return ids[len(ids) - keep * ID_BYTES :] if self.rules.truncate_left else ids[: keep * ID_BYTES]

    def _cut_pairs(
        self,
        firsts: list[bytes],
        seconds: list[bytes],
        over: Sequence[int],
        limit: int,
        truncation: Truncation,
        fields: tuple[str, str],
    ) -> None:
        """Cuts the contents of the rows ``over``, in place."""
        special = self._pair.special_tokens
        room = limit - special
        first = np.array([len(firsts[index]) for index in over], np.int32) // ID_BYTES
        second = np.array([len(seconds[index]) for index in over], np.int32) // ID_BYTES
        if truncation is Truncation.ERROR:
            _refuse(over[0], int(first[0] + second[0]) + special, limit, fields[1])
        if truncation is Truncation.ONLY_SECOND:
            if int(first.max()) > room:
                at = int(np.argmax(first > room))
                _refuse(over[at], int(first[at]) + special, limit, fields[0])
            kept_first, kept_second = first, np.minimum(second, room - first)
        else:
            kept_first, kept_second = longest_first(first, second, room)
        for index, keep_first, keep_second in zip(over, kept_first.tolist(), kept_second.tolist(), strict=True):
            firsts[index] = self._cut(firsts[index], keep_first)
            seconds[index] = self._cut(seconds[index], keep_second)

    def _limit(self, max_length: int | None, template: Template) -> int:
        limit = max_length or self.rules.max_length
        if limit > self.rules.max_length:
            raise InvalidInput("max_length", f"{limit} is more than this model reads; at most {self.rules.max_length}")
        if limit <= template.special_tokens:
            raise InvalidInput("max_length", f"{limit} leaves no room for text; at least {template.special_tokens + 1}")
        return limit


def _refuse(index: int, length: int, limit: int, field: str) -> None:
    raise InvalidInput(
        field.format(index),
        f"{length} tokens with special tokens exceed max_length {limit}; "
        "shorten the text, raise max_length, or let it be cut (truncation longest_first)",
    )


def check_texts(texts: Sequence[str], pattern: str) -> None:
    """Before the tokenizer sees them: it takes a tuple for a pair, and says of a bad text neither which nor why.

    Raises:
        InvalidInput: something is not text, or not valid Unicode; ``pattern`` with its index is the field.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(pattern.format(index), f"expected text, got {type(text).__name__}")
        if text.isascii():  # known without looking, and true of most texts
            continue
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                pattern.format(index),
                f"not valid Unicode: a lone surrogate at character {error.start}; replace it, e.g. with U+FFFD",
            ) from None
