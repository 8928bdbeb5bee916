"""What is kept of rows in flight: who brought them, who waits for them too, and which tickets have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ...errors import PairwireError
from ...runtime.base import Int32Array
from ..batching.buckets import Ladder
from ..batching.pool import QueuedRows
from ..text.encoder import EncodedRows
from ..text.special_tokens import ID_BYTES, Row, SpecialTokens
from .ticket import Ticket, TicketRows

QueuedTicketRows: TypeAlias = QueuedRows[TicketRows]
Follower = tuple[float, float, int, Ticket, int]
"""(when it would be due, deadline, order of arrival, ticket, row of its output)."""
_NONE: Int32Array = np.zeros(0, dtype=np.int32)


@dataclass(slots=True)
class Ended:
    """Tickets that ended, each in one of the lists."""

    finished: list[Ticket] = field(default_factory=list)
    """They have all their results."""
    failed: list[Ticket] = field(default_factory=list)
    """Their batch failed."""
    rejected: list[tuple[Ticket, int, int]] = field(default_factory=list)
    """One of their rows has no finite value: ticket, row of its output, row of the batch."""
    expired: list[Ticket] = field(default_factory=list)
    """Their deadline has passed, or cannot be met any more."""
    refused: list[tuple[Ticket, PairwireError]] = field(default_factory=list)
    """Followers whose owner left and whose own rows could not be queued."""
    requeued: int = 0
    """Rows that were queued again because their owners left."""


@dataclass(eq=False, slots=True)
class Shared:
    """The rows of one model that are in flight."""

    ladder: Ladder
    owners: dict[Row, QueuedTicketRows] = field(default_factory=dict)
    followers: dict[Row, list[Follower]] = field(default_factory=dict)
    """A heap for each row that has any."""
    special: SpecialTokens | None = None
    count: int = 0
    """Rows so far that were answered with the result of an equal one."""

    def land(self, row: Row, queued: QueuedTicketRows) -> list[Follower]:
        """Takes a row that a batch has brought back out of flight; its followers that still wait."""
        if self.owners.get(row) is not queued:
            return []
        del self.owners[row]
        if not self.followers:
            return []
        return [entry for entry in self.followers.pop(row, ()) if entry[3].open]


def is_no_later(owner: QueuedTicketRows, due: float, deadline: float) -> bool:
    """Whether to wait for the owner's row is never later than to queue an own one that is due then."""
    return not owner.waiting or (owner.due <= due and owner.deadline <= deadline)


def rows_again(special: SpecialTokens, rows: Sequence[Row]) -> EncodedRows:
    """Rows that had been read, as a part of their own."""
    lengths = np.array([len(ids) for ids, *_ in rows], np.int32) // ID_BYTES
    return EncodedRows(special, rows, lengths, _NONE)


def tickets_of(requests: Iterable[QueuedTicketRows]) -> list[Ticket]:
    """The open tickets of some requests, each once."""
    return [ticket for ticket in dict.fromkeys(queued.payload.ticket for queued in requests) if ticket.open]
