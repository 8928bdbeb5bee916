"""Fields that hold texts or token ids, in every form in which clients send them, and errors in the caller's own words.

The limits are those of pairwire.v1 (rpc/texts.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from ...config import RequestLimits
from ...engine.text.token_ids import Text
from ...errors import InvalidInput
from ...rpc.texts import decode_id_lists, decode_ids, decode_text, decode_texts
from .reading import decoded

T = TypeVar("T")

_STRING = msgspec.json.Decoder(str).decode
_STRINGS = msgspec.json.Decoder(list[str]).decode
_IDS = msgspec.json.Decoder(list[int]).decode
_ID_LISTS = msgspec.json.Decoder(list[list[int]]).decode
_MIXED = msgspec.json.Decoder(list[str | list[int]]).decode
_FIRST = re.compile(rb"[ \t\r\n]*(.)")


Anything = Annotated[
    msgspec.Raw, msgspec.Meta(description="Any JSON; which of several requests this is, is told by it.")
]
"""A field that is read once it is known what it should be."""
TextsField = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="A text, a list of texts, the token ids of one text, or a list of lists of token ids.",
        extra_json_schema={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
                {
                    "type": "array",
                    "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "minItems": 1,
                },
            ]
        },
    ),
]
"""A field that ``read_texts`` reads."""
UNSET: Any = None
"""What such a field is where it is absent; where it is null, it is the JSON of that."""


def is_unset(raw: msgspec.Raw | None) -> bool:
    """Whether a field is absent or null."""
    return raw is None or bytes(raw) == b"null"


class Document(msgspec.Struct, gc=False):
    """A document as an object; what else it has is not read."""

    text: str


@dataclass(frozen=True, slots=True)
class Given:
    """Texts or token ids, and whether they came as one or as a list."""

    texts: list[Text]
    alone: bool


def read_texts(field: str, raw: msgspec.Raw, limits: RequestLimits, *, mixed: bool = False) -> Given:
    """A string, a list of strings, a list of ids (one text), a list of lists of ids; where ``mixed``, both in one list.

    Raises:
        InvalidInput: something else, or more than the limits allow.
    """
    data = bytes(raw)
    if data[:1] == b'"':
        text = decode_text(field, decoded(_STRING, data, field=field), limits)
        return Given([text], alone=True)
    if data[:1] != b"[":
        raise InvalidInput(field, f"expected a string, a list of strings, or token ids, got {_kind_of(data)}")
    found = _FIRST.match(data, 1)
    first = found[1] if found else b""
    if first.isdigit() or first == b"-":
        return Given([decode_ids(field, decode(_IDS, data, field), limits)], alone=True)
    if mixed or first == b"[":
        _check_lists(field, data, limits, only_lists=first == b"[" and not mixed)
    if first == b"[" and not mixed:
        return Given(list[Text](decode_id_lists(field, decode(_ID_LISTS, data, field), limits)), alone=False)
    if not mixed:
        return Given(list[Text](decode_texts(field, decode(_STRINGS, data, field), limits)), alone=False)
    return Given(_of_both(field, decode(_MIXED, data, field), limits), alone=False)


def read_documents(field: str, documents: Sequence[str | Document], limits: RequestLimits) -> list[str]:
    """Texts of documents.

    Raises:
        InvalidInput: none, too many, or one that is too long.
    """
    return decode_texts(field, [each if isinstance(each, str) else each.text for each in documents], limits)


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Errors that name fields as the engine does, name them as the caller does: ``texts`` -> ``input``."""
    try:
        yield
    except InvalidInput as error:
        for ours, theirs in names.items():
            rest = error.field.removeprefix(ours)
            if rest != error.field and rest[:1] in ("", "[", "."):
                raise InvalidInput(f"{theirs}{rest}", error.reason) from None
        raise


def names_of(field: str, given: Given) -> Mapping[str, str]:
    """What the engine's ``texts`` are called by who gave them."""
    return {"texts[0]": field, "texts": field} if given.alone else {"texts": field}


def _of_both(field: str, given: Sequence[str | list[int]], limits: RequestLimits) -> list[Text]:
    if not given:
        raise InvalidInput.empty(field)
    if len(given) > limits.max_items:
        raise InvalidInput(field, f"{len(given)} exceed --max-items {limits.max_items}; send several smaller requests")
    return [
        decode_text(f"{field}[{index}]", each, limits)
        if isinstance(each, str)
        else decode_ids(f"{field}[{index}]", each, limits)
        for index, each in enumerate(given)
    ]


def _check_lists(field: str, data: bytes, limits: RequestLimits, *, only_lists: bool) -> None:
    """An empty list takes three bytes of a body and sixty of memory."""
    most = limits.max_items if only_lists else max(limits.max_items, len(data) >> 6)
    count = data.count(b"[") - 1
    if count > most:
        raise InvalidInput(field, f"{count} lists in a list, or brackets, exceed {most}; send several smaller requests")


def decode(read: Callable[[bytes], T], data: bytes, field: str) -> T:
    """A field's JSON, as ``read`` reads it.

    Raises:
        InvalidInput: it is something else.
    """
    try:
        return decoded(read, data, field=field)
    except InvalidInput as error:  # msgspec's paths begin at the field
        at = error.field if error.field.startswith("[") else f".{error.field}"
        raise InvalidInput(field if error.field == field else f"{field}{at}", error.reason) from None


def _kind_of(data: bytes) -> str:
    return {b"{": "an object", b"t": "true", b"f": "false", b"n": "null"}.get(data[:1], "a number")
