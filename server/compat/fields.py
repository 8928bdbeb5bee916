"""Errors in the words of a protocol: what the engine calls ``documents[3]`` may be ``texts[3]`` to the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InvalidInput


@contextmanager
def naming(**fields: str) -> Iterator[None]:
    """Gives errors the names that a protocol has for the engine's fields: ``documents="texts"``.

    ``first`` and ``second`` are for the texts of a pair: ``pairs[3].first`` becomes ``query[3]``.
    """
    try:
        yield
    except InvalidInput as error:
        root, bracket, rest = error.field.partition("[")
        index, _, side = rest.partition("].")
        if root == "pairs" and side in fields:
            raise InvalidInput(f"{fields[side]}[{index}]", error.reason) from None
        raise InvalidInput(f"{fields.get(root, root)}{bracket}{rest}", error.reason) from None
