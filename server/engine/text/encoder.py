"""Text -> token ids -> rows: tokenises, truncates exactly as the checkpoint's tokenizer would, and assembles batches.

Each text is tokenised alone, without special tokens, and pairs are put together from the ids. That is exact because a
fast tokenizer treats the two texts of a pair independently until its post-processor adds the special tokens; what it
adds is read off the tokenizer itself (`special_tokens`). So one query with n documents costs n + 1 tokenisations
instead of 2 n, a text that comes twice is tokenised once, and ids can be kept for the next request (`cache`): by a
digest of the text, so that no text outlives its request.
"""

from __future__ import annotations

import math
import os
import sys
from array import array
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np
from tokenizers import Tokenizer

from ...errors import InvalidInput
from ...runtime.base import Int32Array
from ..cache import DIGEST_BYTES, ByteCache
from .assembling import Assembler
from .cutting import cutting_of, tokenize
from .pair_template import PairTemplate
from .rows import EncodedRows as EncodedRows
from .rows import join as join
from .rules import TextRules as TextRules
from .special_tokens import ID_BYTES, Row, no_special_tokens, read_special_tokens
from .token_ids import Text, check_texts, forbid_ids
from .truncation import Truncation, TruncationDirection, limit_of, longest_first, refuse, refuse_empty
from .vocabulary import Vocabulary

_OFF = ByteCache(0)
_PAIRS = ("pairs[{}].first", "pairs[{}].second")
_TEXTS = "texts[{}]"
_WHOLE = b"whole"
_TEMPLATE_NEEDS_TEXT = "this model makes one text of a pair by its template and tokenises that as a whole; send text"
_PROMPT_NEEDS_TEXT = "a prompt is tokenised with the text that it stands before; send text, or an empty prompt for none"


class TextEncoder(Assembler):
    """A checkpoint's tokenizer with its truncation and pair rules. Thread-safe; the tokenizer releases the GIL."""

    def __init__(self, tokenizer: Tokenizer, rules: TextRules) -> None:
        """Reads the tokenizer's special tokens.

        Raises:
            ValueError: one of them has no embedding in the model.
        """
        # The library's own threads take longer to wake than a text takes to tokenise, and take cores from the workers;
        # callers tokenise several requests at once instead. Whoever has set this variable knows better.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        super().__init__(rules)
        self.tokenizer = tokenizer
        self.single = read_special_tokens(tokenizer.encode("a"), rules.max_length)
        """What stands around a single text."""
        self.pair = read_special_tokens(tokenizer.encode("a", "b"), rules.max_length)
        """What stands around and between the texts of a pair."""
        self._bare = no_special_tokens(rules.max_length)
        self.vocabulary = Vocabulary(tokenizer, rules.vocab_size)
        self._special_ids = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._cutting = cutting_of(tokenizer, rules.max_length + 1)
        around = [each.prefix + each.middle + each.suffix for each in (self.single, self.pair)]
        self.vocabulary.check_special(rules, around)

    @classmethod
    def from_file(cls, path: Path, rules: TextRules) -> TextEncoder:
        """Reads a tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)), rules)

    def with_rows(self, rows: int) -> TextEncoder:
        """The same, for a model with embeddings for ids below ``rows``.

        Raises:
            ValueError: as the constructor.
        """
        return TextEncoder(self.tokenizer, replace(self.rules, vocab_size=rows))

    def most_characters(self, truncation: Truncation, direction: TruncationDirection | None = None) -> float:
        """Of a text, what is tokenised as a rule; +inf where all of it is."""
        if self._cutting is None or self._reads_whole(truncation, self._cuts_left(direction)):
            return math.inf
        return self._cutting.characters

    @property
    def takes_empty_pairs(self) -> bool:
        """Whether a pair of two empty texts is a row; else it is refused."""
        template = self.rules.template
        return bool(self.pair.special_tokens if template is None else template.literal_characters)

    @property
    def takes_empty_texts(self) -> bool:
        """Whether an empty text is a row; else it is refused."""
        return bool(self.single.special_tokens) or self.rules.empty_token_id is not None

    def pair_limit(self, max_length: int | None) -> int:
        """Tokens of a pair's row; raises what ``encode_pairs`` raises of ``max_length``."""
        template = self.rules.template
        taken = self.pair.special_tokens if template is None else len(template.suffix_ids)
        return limit_of(max_length, self.rules.max_length, taken)

    def check_pairs(
        self, firsts: Sequence[Text], seconds: Sequence[Text], *, prompt: str = "", fields: tuple[str, str] = _PAIRS
    ) -> bool:
        """Raises what ``encode_pairs`` raises of the texts themselves; whether any of them is token ids."""
        first_ids = check_texts(firsts, fields[0], self.vocabulary.rows)
        second_ids = check_texts(seconds, fields[1], self.vocabulary.rows)
        if self.rules.template is not None:
            forbid_ids(firsts, fields[0], _TEMPLATE_NEEDS_TEXT)
            forbid_ids(seconds, fields[1], _TEMPLATE_NEEDS_TEXT)
            self.rules.template.check_size(firsts, seconds, prompt, fields[0])
        elif prompt and first_ids:
            forbid_ids(firsts, fields[0], _PROMPT_NEEDS_TEXT)
        return first_ids or second_ids

    def check_singles(self, texts: Sequence[Text], *, prompt: str = "", field: str = _TEXTS) -> bool:
        """Raises what ``encode_texts`` raises of the texts themselves; whether any of them is token ids."""
        any_ids = check_texts(texts, field, self.vocabulary.rows)
        if prompt and any_ids:
            forbid_ids(texts, field, _PROMPT_NEEDS_TEXT)
        return any_ids

    def encode_pairs(
        self,
        firsts: Sequence[Text],
        seconds: Sequence[Text],
        *,
        prompt: str = "",
        max_length: int | None = None,
        truncation: Truncation = Truncation.LONGEST_FIRST,
        direction: TruncationDirection | None = None,
        fields: tuple[str, str] = _PAIRS,
        start: int = 0,
        cache: ByteCache = _OFF,
    ) -> EncodedRows:
        """Rows of ``zip(firsts, seconds)``; a single first stands for one query with many documents.

        ``prompt`` is put before every first text, or where the checkpoint's template has a place for it. ``direction``
        is where too long rows are cut; None means the checkpoint's own side. ``fields`` are
        the names under which the caller knows the texts, and ``start`` is the index of the first of them, for errors
        about tokens without an embedding. ``cache`` belongs to this tokenizer alone; it is of no use to a model with a
        template, whose texts come again only where both texts of a pair do.

        Raises:
            InvalidInput: not Unicode text, ``max_length`` out of range, a text that does not fit and may not be cut, a
                token that the model has no embedding for, or token ids that are unknown or stand where text is needed.
        """
        if len(firsts) not in (1, len(seconds)):
            raise ValueError(f"{len(firsts)} first texts for {len(seconds)} second texts")
        any_ids = self.check_pairs(firsts, seconds, prompt=prompt, fields=fields)
        if self.rules.template is not None:
            rendered = self._encode_rendered(
                self.rules.template, firsts, seconds, prompt, max_length, truncation, direction, fields
            )
            self._check_pair_ids(rendered.rows, firsts, seconds, prompt, fields, start)
            return rendered
        special, left = self.pair, self._cuts_left(direction)
        limit = self.pair_limit(max_length)
        whole = self._reads_whole(truncation, left)
        heads = [f"{prompt}{first}" for first in firsts] if prompt else firsts
        ids = self._contents([*heads, *seconds], cache, any_ids, whole)
        first, second = ids[: len(firsts)], ids[len(firsts) :]
        if len(first) < len(second):
            first *= len(second)
        lengths = np.array([len(a) + len(b) for a, b in zip(first, second, strict=True)], np.int32) // ID_BYTES
        if not self.takes_empty_pairs:
            refuse_empty(lengths, fields[1])
        room = limit - special.special_tokens
        if self._cutting is not None and room % 2 and not whole:
            self._complete(heads, seconds, first, second)
        over = np.flatnonzero(lengths > room).tolist() if int(lengths.max(initial=0)) > room else []
        if over:
            self._cut_pairs(first, second, over, limit, truncation, left, fields)
            lengths = np.minimum(lengths, room)
        rows = [special.row(a, b) for a, b in zip(first, second, strict=True)]
        self._check_pair_ids(rows, firsts, seconds, prompt, fields, start)
        return EncodedRows(
            special=special,
            rows=rows,
            lengths=(lengths + special.special_tokens).astype(np.int32),
            truncated=np.array(over, dtype=np.int32),
        )

    def encode_texts(
        self,
        texts: Sequence[Text],
        *,
        prompt: str = "",
        max_length: int | None = None,
        truncation: Truncation = Truncation.LONGEST_FIRST,
        direction: TruncationDirection | None = None,
        field: str = _TEXTS,
        start: int = 0,
        cache: ByteCache = _OFF,
    ) -> EncodedRows:
        """Rows of single texts, ``prompt`` put before each. ``direction`` and ``start`` as for ``encode_pairs``.

        Raises:
            InvalidInput: as ``encode_pairs``; what cuts one text of a pair makes no sense here and is refused too.
        """
        if truncation in (Truncation.ONLY_FIRST, Truncation.ONLY_SECOND):
            only = truncation.value
            raise InvalidInput("truncation", f"{only} needs pairs; use longest_first or error for single texts")
        special, left = self.single, self._cuts_left(direction)
        limit = limit_of(max_length, self.rules.max_length, special.special_tokens)
        any_ids = self.check_singles(texts, prompt=prompt, field=field)
        heads = [f"{prompt}{text}" for text in texts] if prompt else texts
        ids = self._contents(heads, cache, any_ids, self._reads_whole(truncation, left))
        lengths = np.array([len(each) for each in ids], np.int32) // ID_BYTES
        if not self.takes_empty_texts:
            refuse_empty(lengths, field)
        room = limit - special.special_tokens
        over = np.flatnonzero(lengths > room)
        if truncation is Truncation.ERROR and len(over):
            refuse(int(over[0]), int(lengths[over[0]]) + special.special_tokens, limit, field)
        for index in over.tolist():
            ids[index] = _cut(ids[index], room, left)
        left_out = self._prompt_length(prompt, room, left, cache) if prompt and self.rules.prompt_excluded else 0
        rows = [special.row(each, left_out=left_out) for each in ids]
        if found := self.vocabulary.check_rows([row[0] for row in rows]):
            index, id = found
            self.vocabulary.refuse(id, [(field.format(start + index), texts[index]), ("prompt", prompt)])
        lengths = np.minimum(lengths, room) + special.special_tokens
        if self.rules.empty_token_id is not None:
            for index in np.flatnonzero(lengths == 0).tolist():
                rows[index] = special.row(_packed([self.rules.empty_token_id]))
                lengths[index] = 1
        return EncodedRows(
            special=special,
            rows=rows,
            lengths=lengths.astype(np.int32),
            truncated=over.astype(np.int32),
        )

    def tokenize(self, texts: Sequence[str], cache: ByteCache = _OFF, *, whole: bool = False) -> list[bytes]:
        """Content ids of each text, an int32 each, without special tokens; each distinct text once.

        Of a text that is longer than any row, what comes after that may be missing, unless ``whole``. The cache keeps
        the two apart.

        Raises:
            TypeError: something is not text, or not valid Unicode.
        """
        if len(texts) == 2 and texts[0] != texts[1] and not cache:  # one pair, the commonest request of all
            return self._tokenize_new(list(texts), whole)
        distinct = dict.fromkeys(texts, b"")
        if cache:
            keys = [self._key(text, whole) for text in distinct]
            known = cache.get(keys)
            missing = []
            for text, key, ids in zip(distinct, keys, known, strict=True):
                if ids is None:
                    missing.append((text, key))
                else:
                    distinct[text] = ids
            if missing:
                new = self._tokenize_new([text for text, _ in missing], whole)
                cache.put((key, ids) for (_, key), ids in zip(missing, new, strict=True))
                distinct.update((text, ids) for (text, _), ids in zip(missing, new, strict=True))
        else:
            distinct.update(zip(distinct, self._tokenize_new(list(distinct), whole), strict=True))
        return [distinct[text] for text in texts]

    def _check_pair_ids(
        self,
        rows: Sequence[Row],
        firsts: Sequence[Text],
        seconds: Sequence[Text],
        prompt: str,
        fields: tuple[str, str],
        start: int,
    ) -> None:
        """Refuses ids without an embedding, of what is left of the texts after cutting."""
        if found := self.vocabulary.check_rows([row[0] for row in rows]):
            index, id = found
            first = (fields[0].format(start + index), firsts[index if len(firsts) > 1 else 0])
            second = (fields[1].format(start + index), seconds[index])
            self.vocabulary.refuse(id, [second, first, ("prompt", prompt)])

    def _cuts_left(self, direction: TruncationDirection | None) -> bool:
        return self.rules.truncate_left if direction is None else direction is TruncationDirection.LEFT

    def _reads_whole(self, truncation: Truncation, left: bool) -> bool:
        """Whether all of a long text is read: its end is kept, or the caller is told how long it is."""
        return left or truncation is not Truncation.LONGEST_FIRST

    def _key(self, text: str, whole: bool) -> bytes:
        apart = whole and self._cutting is not None and len(text) > self._cutting.characters
        return blake2b(text.encode(), digest_size=DIGEST_BYTES, person=_WHOLE if apart else b"").digest()

    def _contents(self, texts: Sequence[Text], cache: ByteCache, any_ids: bool, whole: bool) -> list[bytes]:
        """What ``tokenize`` gives for texts, of which some may be ids already."""
        if not any_ids:
            return self.tokenize(cast(Sequence[str], texts), cache, whole=whole)
        known = iter(self.tokenize([text for text in texts if isinstance(text, str)], cache, whole=whole))
        return [next(known) if isinstance(text, str) else text.data for text in texts]

    def _complete(
        self, firsts: Sequence[Text], seconds: Sequence[Text], first: list[bytes], second: list[bytes]
    ) -> None:
        """Of two texts that were both cut, the longer one keeps the odd token: reads the rest of both, in place."""
        assert self._cutting is not None
        least = self._cutting.tokens * ID_BYTES
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            if len(a) >= least and len(b) >= least:
                texts = [firsts[index if len(firsts) > 1 else 0], seconds[index]]
                first[index], second[index] = (
                    self.tokenize([text], whole=True)[0] if isinstance(text, str) else text.data for text in texts
                )

    def _tokenize_new(self, texts: Sequence[str], whole: bool) -> list[bytes]:
        return [_packed(ids) for ids in tokenize(self.tokenizer, None if whole else self._cutting, texts)]

    def _cut_pairs(
        self,
        firsts: list[bytes],
        seconds: list[bytes],
        over: Sequence[int],
        limit: int,
        truncation: Truncation,
        left: bool,
        fields: tuple[str, str],
    ) -> None:
        """Cuts the contents of the rows ``over``, in place."""
        special = self.pair.special_tokens
        room = limit - special
        first = np.array([len(firsts[index]) for index in over], np.int32) // ID_BYTES
        second = np.array([len(seconds[index]) for index in over], np.int32) // ID_BYTES
        if truncation is Truncation.ERROR:
            refuse(over[0], int(first[0] + second[0]) + special, limit, fields[1])
        if truncation is Truncation.ONLY_SECOND:
            _check_whole(first, over, special, limit, fields[0])
            kept_first, kept_second = first, np.minimum(second, room - first)
        elif truncation is Truncation.ONLY_FIRST:
            _check_whole(second, over, special, limit, fields[1])
            kept_first, kept_second = np.minimum(first, room - second), second
        else:
            kept_first, kept_second = longest_first(first, second, room)
        for index, keep_first, keep_second in zip(over, kept_first.tolist(), kept_second.tolist(), strict=True):
            firsts[index] = _cut(firsts[index], keep_first, left)
            seconds[index] = _cut(seconds[index], keep_second, left)

    def _encode_rendered(
        self,
        template: PairTemplate,
        firsts: Sequence[Text],
        seconds: Sequence[Text],
        prompt: str,
        max_length: int | None,
        truncation: Truncation,
        direction: TruncationDirection | None,
        fields: tuple[str, str],
    ) -> EncodedRows:
        """Rows of pairs that the template makes one text of: what sentence-transformers makes of the chat template."""
        suffix, left = np.array(template.suffix_ids, np.int32).tobytes(), self._cuts_left(direction)
        limit = self.pair_limit(max_length)
        queries = list(firsts) if len(firsts) == len(seconds) else list(firsts) * len(seconds)
        texts = [template.render(str(a), str(b), prompt) for a, b in zip(queries, seconds, strict=True)]
        ids = self.tokenize(texts, whole=self._reads_whole(truncation, left))
        lengths = np.array([len(each) for each in ids], np.int32) // ID_BYTES
        if not self.takes_empty_pairs:
            refuse_empty(lengths, fields[1])
        over = np.flatnonzero(lengths > limit)
        if truncation is Truncation.ERROR and len(over):
            refuse(int(over[0]), int(lengths[over[0]]), limit, fields[1])
        if truncation is Truncation.ONLY_FIRST and len(over):
            raise InvalidInput(
                "truncation",
                "only_first: this model's template puts the first text before others, and a row is cut at one end; "
                f"use longest_first, or a first text that keeps the row within {limit} tokens",
            )
        for index in over.tolist():
            if truncation is Truncation.ONLY_SECOND:
                field = fields[0].format(index)
                self._check_only_second(template, texts[index], len(seconds[index]), limit, left, field)
            ids[index] = _cut(ids[index], limit, left)
        for index in np.flatnonzero(lengths >= limit).tolist():  # the library does not tell a full row from a cut one
            ids[index] = ids[index][: len(ids[index]) - len(suffix)] + suffix
        return EncodedRows(
            special=self._bare,
            rows=[self._bare.row(each) for each in ids],
            lengths=np.minimum(lengths, limit).astype(np.int32),
            truncated=over.astype(np.int32),
        )

    def _check_only_second(
        self, template: PairTemplate, text: str, second: int, limit: int, left: bool, field: str
    ) -> None:
        """Whether cutting the row to ``limit`` tokens leaves all that stands before the second text, whole.

        ``second`` is how many characters the second text has; ``field`` is what the caller calls the first.
        """
        after = template.characters_after_second
        if after is None or left:
            raise InvalidInput(
                "truncation",
                "only_second: a row of this model is cut at a place where its template has other text too; "
                "use longest_first or error",
            )
        begins = [begin for begin, _ in self.tokenizer.encode(text, add_special_tokens=False).offsets]
        before = sum(begin < len(text) - after - second for begin in begins) + len(template.suffix_ids)
        if before > limit:
            refuse(0, before, limit, field)

    def _prompt_length(self, prompt: str, room: int, left: bool, cache: ByteCache) -> int:
        """How many first tokens of a row are the prompt's: those of the prompt alone, without a special one at its end.

        Source: sentence-transformers, `_get_prompt_length` in base/modules/transformer.py. Special is what
        tokenizer.json says; a checkpoint is not exported where its prompts show that transformers knows others.
        """
        row, *_ = self.single.row(_cut(self.tokenize([prompt], cache, whole=left)[0], room, left))
        last = int.from_bytes(row[-ID_BYTES:], sys.byteorder)
        return len(row) // ID_BYTES - (bool(row) and last in self._special_ids)


def _check_whole(lengths: Int32Array, over: Sequence[int], special: int, limit: int, field: str) -> None:
    """Refuses the first of the rows ``over`` whose text of these ``lengths`` does not fit alone: it may not be cut."""
    too_long = lengths + special > limit
    if too_long.any():
        at = int(np.argmax(too_long))
        refuse(over[at], int(lengths[at]) + special, limit, field)


def _packed(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _cut(ids: bytes, keep: int, left: bool) -> bytes:
    """What is kept: this many tokens of its end where it is cut on the left, else of its beginning."""
    return ids[max(0, len(ids) - keep * ID_BYTES) :] if left else ids[: keep * ID_BYTES]
