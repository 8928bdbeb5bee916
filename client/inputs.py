"""Checks what a caller gave, before anything is sent: every error names its culprit, e.g. ``pairs[3].first``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, SupportsFloat, TypeAlias, get_args

from .errors import InvalidInput
from .given import one_text, two_in_a_row
from .options import ClientOptions, check_timeout
from .token_ids import Text, TokenIds


class HasText(Protocol):
    """An object with a text."""

    @property
    def text(self) -> str:
        """The text."""
        ...


Given: TypeAlias = Text | Mapping[str, Any] | HasText
"""A text, token ids, or a record or object with the text in it: `pairwire.client.given` says how it is called."""

Pair: TypeAlias = Sequence[Given] | Mapping[str, Any]
"""Two texts, or the token ids of two: a tuple, a list, a numpy row, or a record: {"query": ..., "document": ...}."""

Activation = Literal["identity", "sigmoid", "softmax"]
"""What turns logits into scores."""

Truncation = Literal["longest_first", "only_first", "only_second", "error"]
"""What happens to an input that is longer than the limit."""

TruncationDirection = Literal["right", "left"]
"""Which end of a too long input is cut off: "right" is its end, "left" its beginning (of a pair, those of both)."""

Priority = Literal["low", "normal", "high"]
"""What a request may overtake in the server's queue; each gives way only for a while, low for at most ten seconds."""

Encoding = Literal["float32", "float16", "int8", "binary"]
"""How the numbers of vectors travel. float16 ones arrive as float32 again.

int8 has a fixed range for each dimension, from the package, so that a vector does not depend on its neighbours: compare
by cosine. binary has a bit a number, 1 above 0, most significant bit first, in uint8: compare by Hamming distance.
"""

InputType = Literal["query", "document"]
"""What a text is, for a sparse encoder that looks queries up in a table and reads documents with a model."""

_MOST_BYTES_OF_AN_ID = 5
_LIST_OVERHEAD = 6
"""Token ids are a message with a list in it, which has a tag and a length of its own."""
_MAX_UINT32 = 2**32 - 1
_MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """Which model reads, and how. None means the model's own, of ``truncation`` longest_first.

    Raises:
        InvalidInput: an unknown name, a ``max_length`` that is no token count, or two prompts.
    """

    model: str = ""
    """May be empty where exactly one model fits the call."""
    prompt_name: str | None = None
    """The checkpoint's prompt that is put before every text (of a pair: the first), or, with a template for
    pairs, becomes its instruction; None means the default one, which often is none."""
    prompt: str | None = None
    """A prompt as text, instead of a name; empty means none."""
    truncation: Truncation | None = None
    truncation_direction: TruncationDirection | None = None
    max_length: int | None = None
    """Most tokens of an input, special tokens included; at most the model's own limit."""
    priority: Priority | None = None
    """None means normal."""

    def __post_init__(self) -> None:
        utf8_bytes("model", self.model)
        check_prompts(self.prompt_name, self.prompt)
        check_choice("truncation", self.truncation, get_args(Truncation))
        check_choice("truncation_direction", self.truncation_direction, get_args(TruncationDirection))
        check_count("max_length", self.max_length, _MAX_UINT32)
        check_choice("priority", self.priority, get_args(Priority))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions(ReadingOptions):
    """How pairs are read and scored. Errors as `ReadingOptions`."""

    activation: Activation | None = None
    """None means the model's own."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)  # super() does not find its class in one with slots
        check_choice("activation", self.activation, get_args(Activation))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions(ReadingOptions):
    """How texts are read and embedded. Errors as `ReadingOptions`, and ``dimensions`` that are no count."""

    dimensions: int | None = None
    """Matryoshka: how many of the first numbers of each vector are kept."""
    normalize: bool | None = None
    """Unit length, after the cut. False is as None: as the checkpoint does, which normalises, if at all, before it."""
    encoding: Encoding = "float32"
    """float16 halves the bytes of an answer and rounds to about three digits; int8 takes a quarter, binary 1/32."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        check_choice("encoding", self.encoding, get_args(Encoding))
        check_count("dimensions", self.dimensions, _MAX_UINT32)
        if not isinstance(self.normalize, bool | None):
            raise InvalidInput.at("normalize", f"expected True, False or None, got {type(self.normalize).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseOptions(ReadingOptions):
    """How texts are read and embedded by a sparse encoder. Errors as `ReadingOptions`, and a count that is none."""

    max_active_dims: int | None = None
    """How many of the largest weights of each text are kept."""
    input_type: InputType | None = None
    """What the texts are, for a model that reads queries in another way; None means what the model does."""

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        check_count("max_active_dims", self.max_active_dims, _MAX_UINT32)
        check_choice("input_type", self.input_type, get_args(InputType))


def check_prompts(prompt_name: str | None, prompt: str | None) -> None:
    """Refuses what is no text, and a prompt together with the name of one.

    Raises:
        InvalidInput: it is.
    """
    if prompt_name is not None:
        utf8_bytes("prompt_name", prompt_name)
    if prompt is not None:
        utf8_bytes("prompt", prompt)
        if prompt_name is not None:
            raise InvalidInput.at("prompt", f"given together with prompt_name {prompt_name!r}; give one of them")


def utf8_bytes(field: str, text: object) -> int:
    """Bytes of the text in UTF-8.

    Raises:
        InvalidInput: not a ``str``, or one that UTF-8 cannot carry (a lone surrogate).
    """
    if not isinstance(text, str):
        raise InvalidInput.at(field, f"expected text (str), got {type(text).__name__}")
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput.at(
            field, f"not valid Unicode: a lone surrogate at character {error.start}; replace it, e.g. with U+FFFD"
        ) from None


def text_bytes(field: str, text: object) -> int:
    """At most how many bytes a text, or its token ids, take in a request.

    Raises:
        InvalidInput: neither.
    """
    if isinstance(text, TokenIds):
        return _LIST_OVERHEAD + _MOST_BYTES_OF_AN_ID * len(text)
    return utf8_bytes(field, text)


def two_texts(field: str, pair: Any) -> tuple[Text, Text, int]:
    """The texts of a pair, or the token ids of both, and at most how many bytes they take in a request.

    Raises:
        InvalidInput: not two texts.
    """
    first, second = two_in_a_row(field, pair)
    first, second = one_text(f"{field}.first", first), one_text(f"{field}.second", second)
    size = text_bytes(f"{field}.first", first) + text_bytes(f"{field}.second", second)
    if isinstance(first, TokenIds) != isinstance(second, TokenIds):
        raise InvalidInput.at(field, "one text and one of token ids; both of a pair must be the same")
    return first, second, size


def check_choice(field: str, value: object, known: Sequence[str]) -> None:
    """Refuses a name that is none of ``known`` (None is not looked at).

    Raises:
        InvalidInput: it is not.
    """
    if value is not None and (not isinstance(value, str) or value not in known):
        raise InvalidInput.at(field, f"{value!r} is unknown; one of {', '.join(known)}")


def check_count(field: str, value: object, most: int = _MAX_INT32) -> None:
    """Refuses what is no count of at least 1 (None is not looked at).

    Raises:
        InvalidInput: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidInput.at(field, f"expected a whole number, got {type(value).__name__}")
    if not 1 <= value.__index__() <= most:
        raise InvalidInput.at(field, f"{value} is not between 1 and {most}")


def check_number(field: str, value: object) -> None:
    """Refuses what is no number that others can be compared with (None is not looked at).

    Raises:
        InvalidInput: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or isinstance(value, str):
        raise InvalidInput.at(field, f"expected a number, got {type(value).__name__}")
    if math.isnan(float(value)):
        raise InvalidInput.at(field, "NaN is not above or below any number; give a number, or leave it out")


def timeout_of(timeout_s: float | None, options: ClientOptions) -> float | None:
    """Seconds that a request may take, None for no deadline: the call's own, or else the client's.

    Raises:
        ValueError: not a positive number.
    """
    if timeout_s is None:
        return options.timeout_s
    check_timeout(timeout_s)
    return None if math.isinf(timeout_s) else timeout_s
