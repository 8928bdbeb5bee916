"""JSON -> what a route takes: types are checked while they are read, so nothing is built that is not asked for.

msgspec reads: it skips unknown fields without making anything of them, takes "true" for a boolean, and says where
something is of the wrong type. Null is as good as absent, which each optional field's type says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from ...errors import InvalidInput
from .exchange import Exchange

T = TypeVar("T")

_WRONG_TYPE = re.compile(r"Expected (.+), got (.+?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?")
_ELSEWHERE = re.compile(r"(.+?)(?: - at `\$\.?(.*)`)?", re.DOTALL)
_WORDS = {"str": "a string", "int": "an integer", "float": "a number", "bool": "true or false", "array": "a list"}


class JsonReader(Generic[T]):
    """Reads requests of one type."""

    def __init__(self, request_type: type[T], *, may_be_empty: bool = False) -> None:
        """``may_be_empty``: no body at all is an object without fields."""
        self.request_type = request_type
        self._may_be_empty = may_be_empty
        self._decode: Callable[[bytes], T] = msgspec.json.Decoder(request_type, strict=False).decode

    def __call__(self, raw: bytes, exchange: Exchange) -> T:
        """The request.

        Raises:
            InvalidInput: the bytes are not JSON, or something in it is missing or of the wrong type.
        """
        if self._may_be_empty and not raw:
            raw = b"{}"
        return decoded(self._decode, raw, exchange.header("content-type"))


def decoded(decode: Callable[[bytes], T], raw: bytes, content_type: str = "", field: str = "request") -> T:
    """What ``decode`` gives; errors of msgspec become InvalidInput. ``field`` is what the bytes are."""
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise _explained(str(error), field) from None
    except RecursionError:
        raise InvalidInput(field, "nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(field, _not_json(raw, str(error), content_type)) from None


def _not_json(raw: bytes, reason: str, content_type: str) -> str:
    if not raw.strip():
        return "the body is empty; send a JSON object"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not valid UTF-8; encode the body as UTF-8"
    kind = content_type.partition(";")[0].strip().lower()
    hint = f" (Content-Type is {kind[:60]})" if kind not in ("", "application/json") else ""
    what = reason.removeprefix("JSON is malformed: ")
    if what == "Input data was truncated":
        what = "it ends too early, or an escape such as \\ud800 stands for no character"
    return f"not JSON{hint}: {what}; send one JSON object, with double quotes and without NaN or trailing commas"


def _explained(message: str, field: str) -> InvalidInput:
    if found := _MISSING.fullmatch(message):
        return InvalidInput(_path(found[2], found[1]), "missing; it is required")
    if found := _WRONG_TYPE.fullmatch(message):
        return InvalidInput(_path(found[3]) or field, f"expected {_in_words(found[1])}, got {_in_words(found[2])}")
    found = _ELSEWHERE.fullmatch(message)
    assert found is not None  # it matches anything
    reason = found[1]
    return InvalidInput(_path(found[2]) or field, reason[0].lower() + reason[1:])


def _path(at: str | None, name: str = "") -> str:
    """``documents[3].text``; msgspec writes ``[...]`` for the index of a set or mapping."""
    return ".".join(part for part in (at or "", name) if part)


def _in_words(types: str) -> str:
    """`` `str | null` `` -> ``a string or null``."""
    names = [name.strip().strip("`") for name in types.strip("`").split("|")]
    return " or ".join(_WORDS.get(name, f"an {name}" if name == "object" else name) for name in names)
