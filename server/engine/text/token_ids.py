"""What may stand for a text: the text itself, or the ids of its tokens."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InvalidInput

ID_BYTES = 4
"""Of a token id, an int32 in the machine's byte order."""
_BEYOND = 1 << 31


@dataclass(frozen=True, slots=True, init=False, repr=False)
class TokenIds:
    """Token ids of one text, without special tokens, in the vocabulary of the model that reads them. A value."""

    data: bytes
    """An int32 each."""

    def __init__(self, ids: Iterable[int], *, field: str = "token_ids") -> None:
        """``field`` is what the caller calls the text, for error messages.

        Raises:
            InvalidInput: something is no integer, below 0, or no int32.
        """
        object.__setattr__(self, "data", _packed(ids, field))

    def __len__(self) -> int:
        """Tokens."""
        return len(self.data) // ID_BYTES

    def __repr__(self) -> str:
        return f"TokenIds(<{len(self)} tokens>)"

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids."""
        return tuple(memoryview(self.data).cast("i"))

    def check(self, vocab_size: int, field: str) -> None:
        """Raises InvalidInput if an id is not below ``vocab_size``; ``field`` is what the caller calls the text."""
        ids = np.frombuffer(self.data, np.int32)
        if len(ids) and int(ids.max()) >= vocab_size:
            index = int(np.argmax(ids >= vocab_size))
            raise InvalidInput(
                f"{field}.ids[{index}]", f"{ids[index]} is outside the model's vocabulary; ids are below {vocab_size}"
            )


Text = str | TokenIds
"""A text, or the ids of its tokens."""


def check_texts(texts: Sequence[Text], pattern: str, vocab_size: int = _BEYOND) -> bool:
    """Before the tokenizer sees them: it takes a tuple for a pair, and says of a bad text neither which nor why.

    Whether any of them is token ids.

    Raises:
        InvalidInput: something is not text, or not valid Unicode, or an id is not below ``vocab_size``; ``pattern``
            with its index is the field.
    """
    any_ids = False
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            if not isinstance(text, TokenIds):
                raise InvalidInput(pattern.format(index), f"expected text, got {type(text).__name__}")
            text.check(vocab_size, pattern.format(index))
            any_ids = True
        elif not text.isascii():  # known without looking, and not true of most texts
            _check_unicode(text, pattern, index)
    return any_ids


def forbid_ids(texts: Sequence[Text], pattern: str, reason: str) -> None:
    """Raises InvalidInput if a text is given as token ids; ``pattern`` with its index is the field."""
    for index, text in enumerate(texts):
        if isinstance(text, TokenIds):
            raise InvalidInput(pattern.format(index), f"token ids are no text, and {reason}")


def _check_unicode(text: str, pattern: str, index: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            pattern.format(index),
            f"not valid Unicode: a lone surrogate at character {error.start}; replace it, e.g. with U+FFFD",
        ) from None


def _packed(ids: Iterable[int], field: str) -> bytes:
    """An int32 for each id. What is an array, as lists in messages are, is looked at as a whole, 40 times as fast."""
    if hasattr(ids, "__array__"):
        given = np.asarray(ids)
        if given.ndim == 1 and given.dtype.kind in "iu":
            if len(given) and (int(given.min()) < 0 or int(given.max()) >= _BEYOND):
                raise _no_id(given.tolist(), field)
            return given.astype(np.int32).tobytes()
    try:
        each = iter(ids)
    except TypeError:
        reason = f"expected integers from 0 to {_BEYOND - 1} in a row, got {type(ids).__name__}"
        raise InvalidInput(f"{field}.ids", reason) from None
    listed = list(each)
    try:
        packed = array("i", listed)
    except (TypeError, OverflowError):
        packed = array("i")
    if len(packed) < len(listed) or (packed and int(np.frombuffer(packed, np.int32).min()) < 0):
        raise _no_id(listed, field)
    return packed.tobytes()


def _no_id(given: list[int], field: str) -> InvalidInput:
    index = next(index for index, each in enumerate(given) if not _is_id(each))
    value = given[index]
    what = f"{value} is no token id" if hasattr(value, "__index__") else f"{type(value).__name__} is no token id"
    return InvalidInput(f"{field}.ids[{index}]", f"{what}; ids are integers from 0 to {_BEYOND - 1}")


def _is_id(value: object) -> bool:
    try:
        return 0 <= operator.index(value) < _BEYOND  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False
