"""What a call gives the engine to read: pairs, one query with documents, or single texts; tokenised slice by slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .cache import ByteCache
from .text import EncodedRows, TextEncoder, check_texts
from .truncation import Truncation


@dataclass(frozen=True, slots=True)
class PairTexts:
    """``zip(firsts, seconds)``; a single first is one query with many documents."""

    encoder: TextEncoder
    cache: ByteCache
    firsts: Sequence[str]
    seconds: Sequence[str]
    fields: tuple[str, str]
    """What the caller calls the texts, with a place for their index."""
    max_length: int | None
    truncation: Truncation

    @property
    def rows(self) -> int:
        """Pairs."""
        return len(self.seconds)

    @property
    def characters(self) -> int:
        """Of all texts together; 0 where something is no text."""
        return count_characters(self.firsts) + count_characters(self.seconds)

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be encoded apart: no text can be refused for its tokens."""
        return self.truncation is Truncation.LONGEST_FIRST

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included."""
        return self.max_length or self.encoder.rules.max_length

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        check_texts(self.firsts, self.fields[0])
        check_texts(self.seconds, self.fields[1])

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; see ``TextEncoder.encode_pairs``."""
        firsts = self.firsts if len(self.firsts) == 1 else self.firsts[begin:end]
        return self.encoder.encode_pairs(
            firsts,
            self.seconds[begin:end],
            max_length=self.max_length,
            truncation=self.truncation,
            fields=self.fields,
            cache=self.cache,
        )


@dataclass(frozen=True, slots=True)
class SingleTexts:
    """Texts, each with the prompt before it."""

    encoder: TextEncoder
    cache: ByteCache
    texts: Sequence[str]
    prompt: str
    max_length: int | None
    truncation: Truncation

    @property
    def rows(self) -> int:
        """Texts."""
        return len(self.texts)

    @property
    def characters(self) -> int:
        """Of all texts together, prompts included."""
        return count_characters(self.texts) + len(self.prompt) * len(self.texts)

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be encoded apart: no text can be refused for its tokens."""
        return self.truncation is Truncation.LONGEST_FIRST

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included."""
        return self.max_length or self.encoder.rules.max_length

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        check_texts(self.texts, _TEXTS)

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; see ``TextEncoder.encode_texts``."""
        return self.encoder.encode_texts(
            self.texts[begin:end],
            prompt=self.prompt,
            max_length=self.max_length,
            truncation=self.truncation,
            field=_TEXTS,
            cache=self.cache,
        )


_TEXTS = "texts[{}]"


def count_characters(texts: Iterable[str]) -> int:
    """Of all of them; 0 where something is no text, for the tokenizer's stage to say which."""
    try:
        return sum(map(len, texts))
    except TypeError:
        return 0
