"""One call's share of the engine: where its results go, how many are missing, and who waits for them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable

from ...errors import PairwireError
from ...runtime.base import Float32Array, Int32Array
from ..batching.callers import Booking
from ..batching.pool import QueuedRows
from ..batching.priority import Priority
from ..outputs.heads import Head
from ..text.encoder import EncodedRows

logger = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False, slots=True)
class Ticket:
    """What a call waits for. `inflight` alone changes it, under the workers' lock, but for the rows of ``output``."""

    model: str
    field: str
    """What the caller calls its rows, for error messages, e.g. ``pairs``."""
    head: Head
    output: Float32Array
    """[rows, outputs] float32; workers write rows into it, its owner reads it once ``done`` is set."""
    done: asyncio.Future[None]
    deadline: float = math.inf
    """On the engine's clock; +inf for none."""
    priority: Priority = Priority.NORMAL
    caller: str = ""
    """Whom it is for; callers share the machine fairly."""
    partial: bool = False
    """Some of its rows are better than none: what comes too late, or is not let in, is left out."""
    booking: Booking | None = None
    """Room in the queue for its rows that are still to come."""
    left: int = 0
    """Rows without a result; set to all of them on construction."""
    open: bool = True
    """Neither done, failed nor cancelled."""
    parts: list[QueuedRows[TicketRows]] = dataclasses.field(default_factory=list)
    """What is queued for it while it is open: one request as a rule, none where all its rows follow others."""
    padded_tokens: int = 0
    """Padding computed in rows that were queued for it; known when it is closed."""
    arrival: float = math.nan
    started: float = math.nan
    """When the first batch with a result for it began, but not before its arrival."""
    finished: float = math.nan
    """When the last such batch ended."""

    def __post_init__(self) -> None:
        self.left = len(self.output)

    def abandon(self) -> None:
        """Nobody waits any more. On its event loop."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()  # it failed in two ways at once; one of them has been reported


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class TicketRows:
    """Rows of a ticket that are queued together: what the scheduler's request carries."""

    ticket: Ticket
    encoded: EncodedRows
    at: Int32Array
    """[rows] which row of the ticket's output each is."""


def settle(tickets: Iterable[Ticket], error: Callable[[], PairwireError] | None = None) -> None:
    """Tells those who wait that they have all results or have failed: one wake-up of their loop. From any thread.

    ``error`` makes an exception for each, because one that is raised in several tasks gathers all their tracebacks.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for ticket in tickets:
        by_loop.setdefault(ticket.done.get_loop(), []).append(ticket.done)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures, error)
        except RuntimeError:  # the loop was closed under us: nobody is left to hear of it
            logger.warning("%d requests ended after their event loop was closed", len(futures))


def _resolve(futures: Iterable[asyncio.Future[None]], error: Callable[[], PairwireError] | None) -> None:
    for future in futures:
        if future.done():  # cancelled between the worker's wake-up and now
            continue
        if error is None:
            future.set_result(None)
            continue
        try:
            future.set_exception(error())
        except Exception as bug:  # the others still wait for theirs
            future.set_exception(bug)
