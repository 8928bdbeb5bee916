"""What people pass -> texts and pairs of texts: one truth for every call that takes them, and for lines of JSON.

Taken: anything that is read in order (lists, tuples, numpy arrays, a Series of pandas, a column of a data set,
generators). In it, a text is a str, a mapping with "text" or "document", or an object with a ``text``; a pair is two
texts in a row, or a mapping with two keys that belong together (``PAIR_KEYS``). Other keys are not read.

Refused by name: what has no order (sets), or of which something else would be read than its owner thinks (mappings,
their keys and items, tables, files), and single texts and pairs where several are expected.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterable, KeysView, Mapping, Set
from typing import Any

import numpy as np

from .errors import InvalidInput
from .token_ids import TokenIds

PAIR_KEYS = (("first", "second"), ("query", "document"), ("sentence1", "sentence2"), ("text1", "text2"))
"""What the two texts of a pair are called; exactly one of these must be there."""
TEXT_KEYS = ("text", "document")
"""What a single text is called."""
_MOST_KEYS, _MOST_CHARACTERS = 5, 40
"""That a sentence lists."""
_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")


def several(field: str, given: object) -> Iterable[Any]:
    """What was given, if it is read in order and holds several texts or pairs.

    Raises:
        InvalidInput: it is something else; the sentence says what to give.
    """
    reason = _no_list(field, given)
    if reason is not None:
        raise InvalidInput.at(field, reason)
    return given  # type: ignore[return-value]  # it has __iter__


def one_text(field: str, given: object) -> Any:
    """The text, or token ids, or what is neither, for whoever checks texts.

    Raises:
        InvalidInput: a mapping without a text.
    """
    if type(given) is str:
        return given
    if isinstance(given, str):  # of numpy, of an enumeration: as plain as it travels
        return str.__str__(given)
    if isinstance(given, TokenIds):
        return given
    if isinstance(given, Mapping):
        try:
            return text_of(given)
        except ValueError as error:
            raise InvalidInput.at(field, str(error)) from None
    text = getattr(given, "text", None)
    if isinstance(text, str):
        return str.__str__(text)
    if is_missing(given):
        what = f"{type(given).__name__} ({given!r}, a missing value)"
        raise InvalidInput.at(field, f"expected text (str), got {what}; leave the input out, or give ''")
    return given


def two_in_a_row(field: str, pair: object) -> tuple[Any, Any]:
    """The two texts of a pair, or what stands in their places.

    Raises:
        InvalidInput: not two.
    """
    names = _names(pair)
    if names is not None:
        try:
            return pair_of(names)
        except ValueError as error:
            raise InvalidInput.at(field, str(error)) from None
    if isinstance(pair, str | bytes | bytearray | TokenIds) or _is_table(pair) or not _is_sequence(pair):
        what = f"{type(pair).__name__} ({pair!r}, a missing value)" if is_missing(pair) else type(pair).__name__
        raise InvalidInput.at(field, f"expected two texts, e.g. ('a', 'b'), got {what}")
    values = _listed(pair)
    if values is None:
        raise InvalidInput.at(field, f"expected two texts, e.g. ('a', 'b'), got {type(pair).__name__}")
    if len(values) != 2:
        raise InvalidInput.at(field, f"expected two texts, got {len(values)}")
    return values[0], values[1]


def is_pair(given: object) -> bool:
    """Whether this looks like one pair, and not like one text or like many."""
    names = _names(given)
    if names is not None:
        return any(first in names and second in names for first, second in PAIR_KEYS)
    return not isinstance(given, str | bytes | TokenIds) and _is_sequence(given)


def pair_of(record: Mapping[Any, Any]) -> tuple[Any, Any]:
    """The two values of a record that are a pair.

    Raises:
        ValueError: there is no pair in it, or more than one.
    """
    found = [keys for keys in PAIR_KEYS if keys[0] in record and keys[1] in record]
    if len(found) == 1:
        return record[found[0][0]], record[found[0][1]]
    if found:
        named = ", ".join(f"{first} and {second}" for first, second in found)
        raise ValueError(f"has more than one pair ({named}); give one of them")
    known = ", ".join(f"{first} and {second}" for first, second in PAIR_KEYS)
    raise ValueError(f"expected a pair of texts, found the keys {_keys(record)}; a pair has {known}")


def text_of(record: Mapping[Any, Any]) -> Any:
    """The value of a record that is its text.

    Raises:
        ValueError: there is none, or it is a pair, or there are two.
    """
    if any(first in record and second in record for first, second in PAIR_KEYS):
        raise ValueError(f"has a pair of texts ({_keys(record)}) where one text is expected")
    found = [key for key in TEXT_KEYS if key in record]
    if len(found) == 1:
        return record[found[0]]
    if found:
        raise ValueError(f"has {' and '.join(found)}; give one of them")
    raise ValueError(f"expected a text, found the keys {_keys(record)}; it must be called {' or '.join(TEXT_KEYS)}")


def is_missing(given: object) -> bool:
    """Whether this stands for nothing: None, NaN, or what pandas and numpy have for it."""
    return type(given).__name__ in _MISSING or (isinstance(given, float | np.floating) and math.isnan(given))


def _no_list(field: str, given: object) -> str | None:
    """Why something cannot be read as several texts or pairs."""
    if isinstance(given, str | bytes | bytearray | memoryview):
        return f"expected a list, got one {type(given).__name__}; put it into a list"
    if isinstance(given, Mapping):
        return _no_mapping(field, given)
    if isinstance(given, KeysView | ItemsView):
        return f"the {'keys' if isinstance(given, KeysView) else 'items'} of a mapping; give list(...) if you mean them"
    if isinstance(given, Set):
        return f"a {type(given).__name__} has no order, by which to match the answers; give a list"
    if _is_table(given):
        return (
            f"a {type(given).__name__} is a table; give a column of texts, or pairs: list(zip(columns[0], columns[1]))"
        )
    if hasattr(given, "read") and hasattr(given, "readline"):
        return "a file, whose lines would be read with their ends; give a list, e.g. file.read().splitlines()"
    if not hasattr(given, "__iter__") or getattr(given, "ndim", 1) == 0:
        return f"expected a list, got {type(given).__name__}"
    return None


def _no_mapping(field: str, given: Mapping[Any, Any]) -> str:
    record = {key for keys in PAIR_KEYS for key in keys} | set(TEXT_KEYS)
    if record & set(given):
        return f"expected a list, got one {type(given).__name__}; put it into a list"
    return f"a mapping, of which the keys would be read; give list({field}.values()) or list({field})"


def _names(given: object) -> Mapping[Any, Any] | None:
    """Values by name, where the thing has names: their order says nothing then."""
    if type(given) is tuple or type(given) is list:
        return None
    if isinstance(given, Mapping):
        return given
    fields = getattr(given, "_fields", None) or getattr(getattr(given, "dtype", None), "names", None)
    if fields is not None and isinstance(given, tuple):  # a named tuple
        named = dict(zip(fields, given, strict=True))
        return named if any(first in named and second in named for first, second in PAIR_KEYS) else None
    if fields is not None and not getattr(given, "ndim", 0):  # a row of a structured array of numpy
        return {name: given[name] for name in fields}  # type: ignore[index]
    if hasattr(given, "iloc") and not _is_table(given):  # a Series of pandas: a row of a table
        labels = list(given.index)  # type: ignore[attr-defined]
        return dict(zip(labels, given, strict=True)) if any(isinstance(label, str) for label in labels) else None  # type: ignore[call-overload]
    return None


def _listed(pair: Any) -> list[Any] | None:
    try:
        return list(pair)
    except TypeError:
        return None


def _is_sequence(given: object) -> bool:
    return hasattr(given, "__len__") and hasattr(given, "__getitem__")


def _is_table(given: object) -> bool:
    """A DataFrame of pandas or polars, or a table of Arrow: they are read column by column."""
    return (hasattr(given, "columns") and hasattr(given, "dtypes")) or hasattr(given, "itercolumns")


def _keys(record: Mapping[Any, Any]) -> str:
    keys = [str(key)[:_MOST_CHARACTERS] for key in record]
    more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
    return f"{', '.join(keys[:_MOST_KEYS])}{more}" if keys else "none"
