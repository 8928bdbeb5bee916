"""The texts that an export runs on: built-in ones in several languages and lengths, or the user's.

Built-in topics (texts.jsonl) each have a query, a passage that answers it, and a near miss. Even lines calibrate and
odd lines check, so that parity is measured on texts that the calibration has not seen.

A user's file has one JSON value a line: ``{"first": ..., "second": ...}`` or ``[first, second]`` for cross-encoders, a
string or ``{"text": ...}`` for bi-encoders and sparse encoders.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.reasons import reason_of

from .errors import DataInvalid

BUILT_IN = "built-in"
LONGEST_COMPARED = 3072
"""Tokens up to which results are compared: the work of attention grows with their square. Of longer texts, which some
models read, only the tokens are compared."""
Input = tuple[str, ...]
"""One text, or the two of a pair."""

_FILE = Path(__file__).with_name("texts.jsonl")
_EDGE_TEXTS = (
    "",
    " ",
    "?",
    "😀🎉👩‍👩‍👧‍👦",
    "naïve café — “quoted”… ½ ﬁ Å",
    "tabs\tand\nnew lines\r\nand\u00a0hard\u200bspaces",
    "[CLS] [SEP] <s> </s> [MASK]",
    "a<|im_end|> <mask> b</s>  <pad>[UNK] <|endoftext|>c <unk> [PAD][SEP]",
    "  e\u0301 İ ``two''   spaces\u2028\ufeff\x07 \n\n",
    "https://example.org/a?b=1&c=%20#d",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 3,
    "ﷺ สวัสดีชาวโลก გამარჯობა שלום",
)
"""What tokenizers and templates trip over."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Inputs of one kind and where they come from."""

    inputs: Sequence[Input]
    origin: str
    """``built-in``, or the name of the user's file."""


@dataclass(frozen=True, slots=True)
class _Topic:
    query: str
    passage: str
    near: str


def calibration_texts(kind: ModelKind) -> Texts:
    """What activation ranges are taken from: queries with passages of 1 to about 400 tokens, or single texts."""
    topics = _topics()[0::2]
    long = _long_passages(topics)
    if kind is not ModelKind.CROSS_ENCODER:
        return Texts(
            [(text,) for topic in topics for text in (topic.query, topic.passage, topic.near)] + _singles(long),
            BUILT_IN,
        )
    pairs: list[Input] = []
    for index, topic in enumerate(topics):
        other = topics[(index + 7) % len(topics)]
        pairs += [(topic.query, topic.passage), (topic.query, topic.near), (topic.query, other.passage)]
        pairs += [(topic.near, topic.near)]
    pairs += [(topic.query, text) for topic, text in zip(topics, long, strict=False)]
    return Texts(pairs, BUILT_IN)


def range_texts() -> Texts:
    """What the ranges of vectors are taken from: all topics, as nothing is checked against them."""
    topics = _topics()
    texts = [text for topic in topics for text in (topic.query, topic.passage, topic.near)]
    return Texts(_singles([*texts, *_long_passages(topics)]), BUILT_IN)


def parity_texts(kind: ModelKind, max_length: int) -> Texts:
    """What scores are compared on: related, half related, unrelated; short to over-long; the edges of Unicode."""
    topics = _topics()[1::2]
    long = _long_passages(topics)
    beyond = _beyond(topics, max_length)
    if max_length > LONGEST_COMPARED:
        long.append(_beyond(topics, LONGEST_COMPARED // 2))
    if kind is not ModelKind.CROSS_ENCODER:
        texts = [text for topic in topics for text in (topic.query, topic.passage, topic.near)]
        return Texts(_singles([*texts, *long, *_EDGE_TEXTS, beyond]), BUILT_IN)
    pairs: list[Input] = []
    for index, topic in enumerate(topics):
        other = topics[(index + 5) % len(topics)]
        pairs += [(topic.query, topic.passage), (topic.query, topic.near), (topic.query, other.passage)]
        pairs += [(topic.near, topic.passage)]
    pairs += [(topic.query, text) for topic, text in zip(topics, long, strict=False)]
    pairs += [(text, topics[0].passage) for text in _EDGE_TEXTS]
    pairs += [(topics[1].query, text) for text in _EDGE_TEXTS]
    pairs += [("", ""), (beyond, topics[2].passage), (topics[3].query, beyond), (beyond, beyond)]
    return Texts(pairs, BUILT_IN)


def held_out_texts(kind: ModelKind, count: int) -> list[Input]:
    """At most ``count`` that calibrate nothing: of each topic a pair that is related, half related or unrelated."""
    topics = _topics()[1::2]
    passages = [
        (topic.passage, topic.near, topics[(index + 5) % len(topics)].passage)[index % 3]
        for index, topic in enumerate(topics)
    ][:count]
    if kind is not ModelKind.CROSS_ENCODER:
        return _singles(passages)
    return [(topic.query, passage) for topic, passage in zip(topics, passages, strict=False)]


def read_texts(path: Path, kind: ModelKind) -> Texts:
    """The user's texts.

    Raises:
        DataInvalid: the file cannot be read, or a line is not what the kind of model reads.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataInvalid(f"{path}: cannot be read as UTF-8 text ({error})") from error
    inputs = [_parse(line, f"{path}:{number}", kind) for number, line in enumerate(lines, start=1) if line.strip()]
    if len(inputs) < 2:
        raise DataInvalid(f"{path}: {len(inputs)} lines; at least 2 are needed")
    return Texts(inputs, path.name)


def _parse(line: str, where: str, kind: ModelKind) -> Input:
    expected = (
        '{"first": ..., "second": ...} or [first, second]'
        if kind is ModelKind.CROSS_ENCODER
        else '"text" or {"text": ...}'
    )
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataInvalid(f"{where}: not JSON ({reason_of(error)}); expected {expected}") from error
    if isinstance(value, dict):
        value = [value.get("first"), value.get("second")] if kind is ModelKind.CROSS_ENCODER else [value.get("text")]
    elif isinstance(value, str):
        value = [value]
    count = 2 if kind is ModelKind.CROSS_ENCODER else 1
    if not isinstance(value, list) or len(value) != count or not all(isinstance(text, str) for text in value):
        raise DataInvalid(f"{where}: expected {expected} with strings")
    return tuple(value)


def _topics() -> list[_Topic]:
    with _FILE.open(encoding="utf-8") as file:
        return [_Topic(**json.loads(line)) for line in file]


def _long_passages(topics: Sequence[_Topic]) -> list[str]:
    """Passages joined to about 100, 200, 300 and 400 tokens."""
    passages = [topic.passage for topic in topics]
    return [" ".join(passages[start : start + count]) for start, count in ((0, 2), (2, 3), (5, 4), (9, 6), (15, 8))]


def _beyond(topics: Sequence[_Topic], max_length: int) -> str:
    """A text of more tokens than the model reads: a token is rarely longer than six characters, its space included."""
    text = ""
    for topic in itertools.cycle(topics):
        if len(text) > 6 * max_length:
            break
        text += topic.passage + " "
    return text


def _singles(texts: Sequence[str]) -> list[Input]:
    return [(text,) for text in texts]
