"""What a tokenizer makes of a text, for people and programs that want to see it; and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from .token_ids import TokenIds


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """The tokens of a text, whole: nothing is cut off. Four sequences of one length."""

    text: str
    """What was tokenised, a prompt before it included."""
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """What the vocabulary calls them, e.g. ``##ing``."""
    special: tuple[bool, ...]
    """Whether the tokenizer put them around the text."""
    spans: tuple[tuple[int, int], ...]
    """Where in the text they begin and end, in characters; (0, 0) for special ones."""

    def __len__(self) -> int:
        """Tokens."""
        return len(self.ids)

    def covered(self, index: int) -> str:
        """The part of the text that a token stands for; the name of a special one."""
        begin, end = self.spans[index]
        return self.tokens[index] if self.special[index] else self.text[begin:end]

    def byte_spans(self) -> list[tuple[int, int]]:
        """As ``spans``, in bytes of UTF-8."""
        if self.text.isascii():
            return list(self.spans)
        points = np.frombuffer(self.text.encode("utf-32-le"), np.uint32)
        sizes = 1 + (points >= 1 << 7) + (points >= 1 << 11) + (points >= 1 << 16).astype(np.int64)
        begins = [0, *np.cumsum(sizes).tolist()]
        return [(begins[begin], begins[end]) for begin, end in self.spans]


def tokenised(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> TokenisedText:
    """All tokens of a text; ``add_special_tokens`` puts around it what a single text has."""
    found = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    return TokenisedText(
        text=text,
        ids=tuple(found.ids),
        tokens=tuple(found.tokens),
        special=tuple(each == 1 for each in found.special_tokens_mask),
        spans=tuple(found.offsets),
    )


def decoded(tokenizer: Tokenizer, ids: TokenIds, *, skip_special_tokens: bool) -> str:
    """A text with these tokens, as far as the tokenizer can tell: what it leaves out of a text stays out."""
    text: str = tokenizer.decode(list(ids.ids), skip_special_tokens=skip_special_tokens)
    return text
