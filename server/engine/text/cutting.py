"""Where a long text may be cut before it is tokenised, so that what the model reads of it is provably the same.

A checkpoint reads the first tokens of a text, and a text may be a thousand times as long. It is cut only at a single
space between two letters or digits, and only for tokenizers whose every step looks at no more than one word at a time
around such a place: what stands before it then gives the same tokens, whatever comes after. Whether that was enough is
seen from the number of tokens; if not, more of the text is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 8
"""Of the first piece; most languages have fewer, so that one piece is enough."""

_LETTER = "[0-9A-Za-z\u00c0-\u024f\u0391-\u03c9\u0400-\u045f]"
"""Characters that no normaliser joins with a space next to them."""
_PLACE = re.compile(f"(?<={_LETTER}) (?={_LETTER})")

_LOCAL_NORMALIZERS = {
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "StripAccents",
    "Strip",
    "Precompiled",
    "Prepend",
}
_LOCAL_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""Each splits at spaces, and looks at no more than the characters next to a place."""
_HARMLESS = {"Punctuation", "Digits"}
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PATTERNS = {_GPT2, _LLAMA3, _LLAMA3.replace("{1,3}", "")}  # the last is Qwen's
"""In all of them a space before a letter begins a new piece."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """How texts of one tokenizer are cut."""

    tokens: int
    """This many are always enough."""

    @property
    def characters(self) -> int:
        """Texts up to this are not cut."""
        return CHARACTERS_PER_TOKEN * self.tokens

    def piece(self, text: str, characters: int) -> str:
        """The beginning of a text, at least this many characters of it; all of it where there is no place to cut."""
        place = _PLACE.search(text, characters)
        return text if place is None else text[: place.start()]


def tokenize(tokenizer: Tokenizer, cutting: Cutting | None, texts: Sequence[str]) -> list[Sequence[int]]:
    """Content ids of each text, all of them or at least the first ``cutting.tokens``."""
    if cutting is None:
        return _ids(tokenizer, texts)
    most = cutting.characters
    if all(len(text) <= most for text in texts):
        return _ids(tokenizer, texts)
    pieces = [text if len(text) <= most else cutting.piece(text, most) for text in texts]
    ids = _ids(tokenizer, pieces)
    for at, (text, piece) in enumerate(zip(texts, pieces, strict=True)):
        while len(ids[at]) < cutting.tokens and len(piece) < len(text):
            piece = cutting.piece(text, 2 * len(piece))
            (ids[at],) = _ids(tokenizer, [piece])
    return ids


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Sequence[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def cutting_of(tokenizer: Tokenizer, tokens: int) -> Cutting | None:
    """How to cut texts of which the first ``tokens`` are read; None where it cannot be shown to change nothing."""
    if type(tokenizer.model).__name__ not in ("WordPiece", "WordLevel", "BPE", "Unigram"):
        return None
    if getattr(tokenizer.model, "dropout", None):
        return None
    if any(re.search(r"\s", token.content) for token in tokenizer.get_added_tokens_decoder().values()):
        return None
    if not _is_local(_state(tokenizer.normalizer)) or not _splits(_state(tokenizer.pre_tokenizer)):
        return None
    return Cutting(tokens)


def _state(part: Any) -> Mapping[str, Any]:
    """What tokenizer.json says of a part; empty where there is none."""
    found: Mapping[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return found


def _is_local(normalizer: Mapping[str, Any]) -> bool:
    kind = normalizer.get("type")
    if kind == "Sequence":
        return all(_is_local(each) for each in normalizer["normalizers"])
    if kind == "Replace":
        pattern = normalizer["pattern"]
        literal = pattern.get("String")
        return pattern.get("Regex") == " {2,}" or (literal is not None and (literal == " " or " " not in literal))
    return kind is None or kind in _LOCAL_NORMALIZERS


def _splits(splitter: Mapping[str, Any]) -> bool:
    """Whether it splits at a single space between letters, and every step of it looks at no more than what is there."""
    steps = splitter["pretokenizers"] if splitter.get("type") == "Sequence" else [splitter]
    return all(_is_step(step) for step in steps) and any(_splits_at_spaces(step) for step in steps)


def _is_step(step: Mapping[str, Any]) -> bool:
    kind = step.get("type")
    return kind in _HARMLESS | {"ByteLevel", "Metaspace"} or _splits_at_spaces(step)


def _splits_at_spaces(step: Mapping[str, Any]) -> bool:
    kind = step.get("type")
    if kind == "ByteLevel":
        return bool(step.get("use_regex", True))
    if kind == "Metaspace":
        return bool(step.get("split", True))
    if kind == "Split":
        return step["pattern"].get("Regex") in _PATTERNS and step["behavior"] == "Isolated" and not step["invert"]
    return kind in _LOCAL_SPLITTERS
