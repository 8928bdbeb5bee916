"""One call on its way through the engine, and what is told of it afterwards."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import DeadlineExceeded, InvalidInput, NotReady, Overloaded
from .batching.priority import Priority
from .models.model import Model
from .observer import Outcome, RequestEvent
from .outputs.heads import Activation
from .results import Timing, Usage
from .running.ticket import Ticket
from .text.encoder import EncodedRows

_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (InvalidInput, Outcome.INVALID),
    (Overloaded, Outcome.OVERLOADED),
    (DeadlineExceeded, Outcome.DEADLINE),
    (NotReady, Outcome.NOT_READY),
    (asyncio.CancelledError, Outcome.CANCELLED),
)


class Texts(Protocol):
    """What a call was given, ready to be tokenised piece by piece."""

    @property
    def rows(self) -> int:
        """Pairs or texts."""
        ...

    @property
    def characters(self) -> int:
        """Of all texts together; 0 where something is no text, which ``encode`` will name."""
        ...

    @property
    def may_be_split(self) -> bool:
        """Whether rows may be encoded apart: no text can be refused for its tokens."""
        ...

    @property
    def most_tokens(self) -> int:
        """Most tokens of a row, special tokens included."""
        ...

    def check(self) -> None:
        """Raises what ``encode`` would raise of the texts themselves."""
        ...

    def encode(self, begin: int, end: int) -> EncodedRows:
        """Rows ``begin`` to ``end``; indices in errors and in ``truncated`` count from ``begin``."""
        ...


@dataclass(slots=True)
class Call:
    """What was asked, and how far it has come."""

    model: Model
    what: str
    """What the caller calls its rows, for error messages."""
    texts: Texts
    activation: Activation
    priority: Priority
    timeout_s: float | None
    tokenize_s: float = 0.0
    encoded: int = 0
    """Rows that have been tokenised."""
    tokens: int = 0
    truncated: list[int] = field(default_factory=list)
    ticket: Ticket | None = None

    def note_encoded(self, rows: EncodedRows, seconds: float) -> None:
        """Books its next rows as tokenised, ``seconds`` after it came."""
        if not self.encoded:
            self.tokenize_s = seconds
        self.truncated += (rows.truncated + self.encoded).tolist()
        self.tokens += rows.tokens
        self.encoded += len(rows)

    @property
    def usage(self) -> Usage:
        """What it cost, once it is done."""
        padded = self.ticket.padded_tokens if self.ticket else 0
        return Usage(self.tokens, padded, tuple(self.truncated))

    @property
    def timing(self) -> Timing:
        """Where its time went so far."""
        ticket = self.ticket
        if ticket is None or math.isnan(ticket.started):
            return Timing(0.0, self.tokenize_s, 0.0)
        return Timing(ticket.started - ticket.arrival, self.tokenize_s, ticket.finished - ticket.started)

    def event(self, error: BaseException | None) -> RequestEvent:
        """For the observer, when it has ended, with or without an error."""
        timing = self.timing
        return RequestEvent(
            model=self.model.name,
            kind=self.model.kind,
            rows=self.texts.rows,
            tokens=self.tokens,
            outcome=_outcome(error),
            queue_s=timing.queue_s,
            tokenize_s=timing.tokenize_s,
            compute_s=timing.compute_s,
        )


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.OK
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), Outcome.FAULT)
