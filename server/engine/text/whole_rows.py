"""Rows as a graph reads them, with special tokens and padding -> the texts that are in them.

For callers who tokenise themselves, as they did for a graph that was exported by hand. What is found is put together
again like every other input; a row that would not come out as it was given is refused, not guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInput
from .special_tokens import SpecialTokens
from .token_ids import ID_BYTES, TokenIds

Integers = npt.NDArray[np.int64]


def texts_of(special: SpecialTokens, ids: Integers, mask: Integers | None, field: str) -> list[TokenIds]:
    """The texts of rows [rows, length]; ``special`` is what a tokenizer puts around a single text.

    Raises:
        InvalidInput: a row that the tokenizer would not have made of a text.
    """
    rows = unpadded(ids, mask, field)
    return [single_of(special, row, f"{field}[{index}]") for index, row in enumerate(rows)]


def pairs_of(
    special: SpecialTokens, ids: Integers, mask: Integers | None, types: Integers | None, field: str
) -> list[tuple[TokenIds, TokenIds]]:
    """As ``texts_of``, of pairs; ``types`` [rows, length] are the token types, if they are given."""
    rows = unpadded(ids, mask, field)
    kinds: Sequence[Integers | None] = [None] * len(rows)
    if types is not None:
        kinds = list(types) if mask is None else [row[keep != 0] for row, keep in zip(types, mask, strict=True)]
    return [
        pair_of(special, row, kind, f"{field}[{index}]")
        for index, (row, kind) in enumerate(zip(rows, kinds, strict=True))
    ]


def unpadded(ids: Integers, mask: Integers | None, field: str) -> list[npt.NDArray[np.int32]]:
    """The tokens of each row of ``ids`` [rows, length] that the mask [rows, length] shows.

    Raises:
        InvalidInput: what can be no id, or a mask with holes.
    """
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= 1 << 31):
        raise InvalidInput(field, "a number is no token id; ids are from 0 to 2147483647")
    narrow = ids.astype(np.int32)
    if mask is None:
        return list(narrow)
    shown = mask != 0
    if (np.abs(np.diff(shown.astype(np.int8), axis=1)).sum(axis=1) > 2).any() or (
        shown.shape[1] and (shown[:, 0] & shown[:, -1] & ~shown.all(axis=1)).any()
    ):
        raise InvalidInput("attention_mask", "a row has ones on both sides of zeros; its tokens must stand together")
    return [row[keep] for row, keep in zip(narrow, shown, strict=True)]


def single_of(special: SpecialTokens, row: npt.NDArray[np.int32], field: str) -> TokenIds:
    """The text of a row.

    Raises:
        InvalidInput: its special tokens are not those of a single text.
    """
    return _tokens(_inside(special, row.tobytes(), field), field)


def pair_of(
    special: SpecialTokens, row: npt.NDArray[np.int32], types: npt.NDArray[np.int64] | None, field: str
) -> tuple[TokenIds, TokenIds]:
    """The two texts of a row; ``types`` are the types of its tokens.

    Raises:
        InvalidInput: its special tokens or types are not those of a pair, or nothing tells where the second begins.
    """
    inside = _inside(special, row.tobytes(), field)
    middle, before = special.middle, len(special.prefix) // ID_BYTES
    if not middle and types is None:
        raise InvalidInput(field, "this model puts nothing between the texts of a pair: send token_type_ids, or text")
    given = None if types is None else types.astype(np.uint8).tobytes()
    fits = False
    for at in range(0, len(inside) - len(middle) + 1, ID_BYTES):
        if inside[at : at + len(middle)] != middle:
            continue
        fits = True
        if given is None or given == b"".join(special.types(len(row), before + at // ID_BYTES)):
            return _tokens(inside[:at], field), _tokens(inside[at + len(middle) :], field)
    if fits:
        raise InvalidInput(
            field.replace("input_ids", "token_type_ids"), "not the types that this model's pairs have; leave them out"
        )
    raise InvalidInput(field, f"no pair: {_names(middle)} does not stand between two texts")


def _inside(special: SpecialTokens, raw: bytes, field: str) -> bytes:
    """What stands between the special tokens at both ends."""
    begin, end = len(special.prefix), len(raw) - len(special.suffix)
    if begin > end or raw[:begin] != special.prefix or raw[end:] != special.suffix:
        raise InvalidInput(
            field,
            f"does not begin with {_names(special.prefix)} and end with {_names(special.suffix)}, as this model's "
            "tokenizer has it; send what its tokenizer gives, with an attention_mask over padding",
        )
    return raw[begin:end]


def _tokens(raw: bytes, field: str) -> TokenIds:
    return TokenIds(np.frombuffer(raw, np.int32), field=field)


def _names(raw: bytes) -> str:
    ids = np.frombuffer(raw, np.int32).tolist()
    return f"the ids {ids}" if ids else "nothing"
