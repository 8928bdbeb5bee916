"""What callers of the engine pass -> lists. Texts and pairs only, in order: records are for `pairwire.client.given`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeVar

from ...errors import InvalidInput
from .token_ids import Text, TokenIds

T = TypeVar("T")


def listed(field: str, texts: Iterable[T]) -> Sequence[T]:
    """The texts, read once.

    Raises:
        InvalidInput: not several things in an order; what each of them is, is not looked at.
    """
    _check(field, texts)
    return texts if isinstance(texts, list | tuple) else list(texts)


def unzipped(field: str, pairs: Iterable[tuple[Text, Text]]) -> tuple[list[Text], list[Text]]:
    """First and second texts.

    Raises:
        InvalidInput: not several things in an order, or one of them is not two.
    """
    _check(field, pairs)
    firsts: list[Text] = []
    seconds: list[Text] = []
    for index, pair in enumerate(pairs):
        if type(pair) is not tuple or len(pair) != 2:
            _check_pair(f"{field}[{index}]", pair)
        first, second = pair
        firsts.append(first)
        seconds.append(second)
    return firsts, seconds


def _check_pair(field: str, pair: object) -> None:
    if isinstance(pair, Mapping):
        raise InvalidInput(field, f"a {type(pair).__name__}, of which the keys would be read; give (first, second)")
    single = isinstance(pair, str | bytes | bytearray | TokenIds | Set) or hasattr(pair, "columns")
    if single or not hasattr(pair, "__len__") or not hasattr(pair, "__getitem__"):
        raise InvalidInput(field, f"expected two texts, e.g. ('a', 'b'), got {type(pair).__name__}")
    if len(pair) != 2:
        raise InvalidInput(field, f"expected two texts, got {len(pair)}")


def _check(field: str, given: object) -> None:
    kind = type(given).__name__
    if type(given) is list or type(given) is tuple:
        return
    if isinstance(given, str | bytes | bytearray | memoryview | TokenIds):
        raise InvalidInput(field, f"expected a list, got one {kind}; put it into a list")
    if isinstance(given, Mapping):
        raise InvalidInput(field, f"a {kind}, whose keys would be read; give a list, e.g. list({field}.values())")
    if isinstance(given, Set):
        raise InvalidInput(field, f"a {kind} has no order, by which to match the answers; give a list")
    if hasattr(given, "columns") or hasattr(given, "itercolumns"):
        raise InvalidInput(field, f"a {kind} is read column by column; give one of its columns, or a list of pairs")
    if hasattr(given, "readline"):
        raise InvalidInput(field, "a file, whose lines would be read with their ends; give a list of texts")
    if not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise InvalidInput(field, f"expected a list, got {kind}")
