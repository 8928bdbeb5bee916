"""What all of TEI's routes share: its errors, how texts are read, and what its headers tell of a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from .... import errors
from ....engine.results import ModelInfo, Timing, Usage
from ....engine.text.token_ids import Text, TokenIds
from ....engine.text.truncation import Truncation, TruncationDirection
from ....errors import InvalidInput
from ....rpc.caller import caller
from ...tei_cost import Cost
from ..errors import Failure, Family
from ..routes import Asked
from ..texts import Given
from .types import Reading, TeiError

_DIRECTIONS = {"left": TruncationDirection.LEFT, "right": TruncationDirection.RIGHT}


class EmptyInput(InvalidInput):
    """Nothing is there to be read, which has a status of its own in TEI."""


def _kind_of(failure: Failure) -> str:
    match failure.error:
        case errors.Overloaded() | errors.DeadlineExceeded():
            return "Overloaded"
        case errors.NotReady():
            return "Unhealthy"
        case EmptyInput():
            return "Empty"
        case errors.InvalidInput() | errors.ModelNotFound():
            return "Validation"
    return "Backend"


TEI = Family(
    "tei",
    lambda failure: {"error": failure.message, "error_type": _kind_of(failure)},
    statuses={
        EmptyInput: 400,
        errors.InvalidInput: 422,
        errors.WrongModelKind: 424,
        errors.Unsupported: 424,
        errors.EngineFault: 424,
    },
    error_type=TeiError,
)


class ReadingFields(TypedDict):
    """Fields of the engine's `ReadingOptions`."""

    truncation: Truncation
    truncation_direction: TruncationDirection | None
    caller: str


def reading(request: Reading) -> ReadingFields:
    """How texts are read: cut where they are too long, unless that is forbidden.

    Raises:
        InvalidInput: a direction that there is not.
    """
    direction = request.truncation_direction
    if direction is not None and direction.lower() not in _DIRECTIONS:
        raise InvalidInput("truncation_direction", f"{direction[:40]!r} is no direction; left or right")
    return {
        "truncation": Truncation.ERROR if request.truncate is False else Truncation.LONGEST_FIRST,
        "truncation_direction": None if direction is None else _DIRECTIONS[direction.lower()],
        "caller": caller(),
    }


def check_given(field: str, given: Given) -> None:
    """Raises EmptyInput where the one text that is given is empty."""
    if given.alone and not given.texts[0]:
        raise EmptyInput(field, "empty; give a text")


def headers(
    asked: Asked[Any], found: ModelInfo, texts: Iterable[Text], usage: Usage, timing: Timing
) -> tuple[tuple[str, str], ...]:
    """What a call cost: characters, tokens, and whole milliseconds."""
    characters = sum(0 if isinstance(text, TokenIds) else len(text) for text in texts)
    return Cost.of(found, characters, asked.exchange.elapsed_s, usage, timing).headers()
