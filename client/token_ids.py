"""A text that the caller has tokenised already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, init=False, repr=False)
class TokenIds:
    """The ids of a text's tokens, which may stand where a text stands: ``TokenIds(tokenizer.encode(text).ids)``.

    Ids of the model's own vocabulary, without special tokens: what ``tokenizer(text, add_special_tokens=False)`` gives.
    The server cuts them and adds special tokens as it does for text. They go without a prompt.

    A type of its own, because a list of numbers could as well be a list of texts or a pair.
    """

    ids: tuple[int, ...]

    def __init__(self, ids: Iterable[SupportsIndex]) -> None:
        """``ids`` may be a list, a numpy array or a tensor of whole numbers; it may be empty.

        Raises:
            InvalidInput: something else, or a number that cannot be an id.
        """
        given = _array(ids)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise InvalidInput.at("ids", f"expected whole numbers in a row, got {given.dtype} {list(given.shape)}")
        wrong = np.flatnonzero((given < 0) | (given > _MOST))
        if wrong.size:
            raise InvalidInput.at(f"ids[{wrong[0]}]", f"{given[wrong[0]]} is not between 0 and {_MOST}")
        object.__setattr__(self, "ids", tuple(given.tolist()))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"TokenIds(<{len(self)} tokens>)"


def _array(ids: Iterable[SupportsIndex]) -> npt.NDArray[Any]:
    try:
        listed = ids if hasattr(ids, "__array__") else iter(ids)
    except TypeError:
        raise InvalidInput.at("ids", f"expected whole numbers in a row, got {type(ids).__name__}") from None
    listed = list(listed) if isinstance(listed, Iterator) else listed
    try:
        return np.asarray(listed)
    except (TypeError, ValueError) as error:  # lists of several lengths, or a tensor that is not in this memory
        raise InvalidInput.at("ids", f"expected whole numbers in a row, but numpy says: {error}") from None


Text: TypeAlias = str | TokenIds
"""A text, or the ids of its tokens."""
