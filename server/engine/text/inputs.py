"""What a call gives the engine to read: pairs, one query with documents, or single texts; tokenised slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..cache import ByteCache
from .encoder import EncodedRows, TextEncoder
from .token_ids import Text
from .truncation import Truncation, TruncationDirection


class Texts(Protocol):
    """What a call was given, ready to be tokenised piece by piece."""

    @property
    def rows(self) -> int:
        """Pairs or texts."""
        ...

    @property
    def characters(self) -> int:
        """Of all texts together, as far as they are read; 0 where something is no text, which ``encode`` will name."""
        ...

    @property
    def row_characters(self) -> float:
        """Of a row, on average."""
        ...

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be encoded apart: no text can be refused for its tokens."""
        ...

    def sizes(self) -> list[int]:
        """Characters of each row, but for the one first text of many; not more than are read of a text."""
        ...

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included."""
        ...

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        ...

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; indices in errors and in ``truncated`` count from ``begin``."""
        ...


@dataclass(frozen=True, slots=True)
class PairTexts:
    """``zip(firsts, seconds)``; a single first is one query with many documents."""

    encoder: TextEncoder
    cache: ByteCache
    firsts: Sequence[Text]
    seconds: Sequence[Text]
    prompt: str
    """What stands before every first text, or in its place in the checkpoint's template."""
    fields: tuple[str, str]
    """What the caller calls the texts, with a place for their index."""
    max_length: int | None
    truncation: Truncation
    direction: TruncationDirection | None = None
    start: int = 0
    """Index of the first pair in what the caller gave."""

    def part(self, begin: int, end: int) -> PairTexts:
        """Pairs ``begin`` to ``end`` of these."""
        firsts = self.firsts if len(self.firsts) == 1 else self.firsts[begin:end]
        return replace(self, firsts=firsts, seconds=self.seconds[begin:end], start=self.start + begin)

    @property
    def rows(self) -> int:
        """Pairs."""
        return len(self.seconds)

    @property
    def characters(self) -> int:
        """Of all that is tokenised; 0 where something is no text."""
        most = self._most_characters
        firsts, seconds = count_characters(self.firsts, most), count_characters(self.seconds, most)
        template = self.encoder.rules.template
        if template is None:
            return firsts + seconds + len(self.prompt) * len(self.firsts)
        times = len(self.seconds) // len(self.firsts)  # a query is tokenised again with every document
        return firsts * times + seconds + (template.literal_characters + len(self.prompt)) * len(self.seconds)

    @property
    def row_characters(self) -> float:
        """Of a row, on average."""
        template = self.encoder.rules.template
        around = len(self.prompt) + (0 if template is None else template.literal_characters)
        most = self._most_characters
        firsts, seconds = count_characters(self.firsts, most), count_characters(self.seconds, most)
        return around + firsts / len(self.firsts) + seconds / self.rows

    @property
    def _most_characters(self) -> float:
        return self.encoder.most_characters(self.truncation, self.direction)

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be computed before all are read: no text can be refused for the number of its tokens."""
        return self.truncation is Truncation.LONGEST_FIRST and self.encoder.takes_empty_pairs

    def sizes(self) -> list[int]:
        """Characters of each row, but for the one first text of many; not more than are read of a text."""
        most = self._most_characters
        seconds = [int(min(len(text), most)) for text in self.seconds]
        if len(self.firsts) < len(seconds):
            return seconds
        return [size + int(min(len(text), most)) for size, text in zip(seconds, self.firsts, strict=True)]

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included; a limit that is too high is refused by ``encode``."""
        return min(self.max_length or self.encoder.rules.max_length, self.encoder.rules.max_length)

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        self.encoder.check_pairs(self.firsts, self.seconds, prompt=self.prompt, fields=self.fields)

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; see ``TextEncoder.encode_pairs``."""
        firsts = self.firsts if len(self.firsts) == 1 else self.firsts[begin:end]
        return self.encoder.encode_pairs(
            firsts,
            self.seconds[begin:end],
            prompt=self.prompt,
            max_length=self.max_length,
            truncation=self.truncation,
            direction=self.direction,
            fields=self.fields,
            start=self.start + begin,
            cache=self.cache,
        )


@dataclass(frozen=True, slots=True)
class SingleTexts:
    """Texts, each with the prompt before it."""

    encoder: TextEncoder
    cache: ByteCache
    texts: Sequence[Text]
    prompt: str
    max_length: int | None
    truncation: Truncation
    direction: TruncationDirection | None = None

    @property
    def rows(self) -> int:
        """Texts."""
        return len(self.texts)

    @property
    def characters(self) -> int:
        """Of all texts together, prompts included."""
        most = self.encoder.most_characters(self.truncation, self.direction)
        return count_characters(self.texts, most) + len(self.prompt) * len(self.texts)

    @property
    def row_characters(self) -> float:
        """Of a row, on average."""
        return self.characters / self.rows

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be computed before all are read: no text can be refused for the number of its tokens."""
        return self.truncation is Truncation.LONGEST_FIRST and self.encoder.takes_empty_texts

    def sizes(self) -> list[int]:
        """Characters of each row; not more than are read of a text."""
        most = self.encoder.most_characters(self.truncation, self.direction)
        return [int(min(len(text), most)) + len(self.prompt) for text in self.texts]

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included; a limit that is too high is refused by ``encode``."""
        return min(self.max_length or self.encoder.rules.max_length, self.encoder.rules.max_length)

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        self.encoder.check_singles(self.texts, prompt=self.prompt)

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; see ``TextEncoder.encode_texts``."""
        return self.encoder.encode_texts(
            self.texts[begin:end],
            prompt=self.prompt,
            max_length=self.max_length,
            truncation=self.truncation,
            direction=self.direction,
            start=begin,
            cache=self.cache,
        )


def count_characters(texts: Sequence[Text], most: float = math.inf) -> int:
    """Of all of them, each token id as one, and of each at most ``most``.

    0 where something is no text, for the tokenizer's stage to say which.
    """
    try:
        sizes = list(map(len, texts))
        if max(sizes, default=0) <= most:
            return sum(sizes)
        return int(sum(min(size, most) for size in sizes))
    except TypeError:
        return 0
