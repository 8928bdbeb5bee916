"""A call that is answered in time with what was scored: rows are let in and run in order, as far as there is room."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from ..clock import Clock
from ..errors import DeadlineExceeded, Overloaded
from ..runtime.base import Float32Array, Int32Array
from .off_loop import off_loop
from .results import Unscored, UnscoredReason
from .running.ticket import Ticket
from .running.worker import WorkerPool
from .text.encoder import EncodedRows
from .text.inputs import PairTexts
from .text.stage import TextStage

_PART_ROWS = 16
"""Rows that wait together: within them the longest go first, from one part to the next it is the order of the rows."""
_LARGE_CHARACTERS = 100_000
"""From here on even to look whether it is text takes the event loop too long."""
_ROUNDS = 3
"""How often it is asked for more room, where rows turned out to be shorter than they were taken for."""
_LEAST_MARGIN_S, _MOST_MARGIN_S = 0.015, 0.2
_LATE = 2.0
"""What a busy event loop was late by lately it may be late by again, more than once on the way of an answer."""
_MARGIN = 0.1
"""Part of its time that a call leaves for its answer to be encoded and sent."""

_TOO_LATE = "the deadline came before they were scored"


def answer_after(timeout_s: float, late_s: float = 0.0) -> float:
    """Seconds after which a call with so much time is answered, whatever it has; ``late_s``: see `Anytime`."""
    margin_s = min(_MOST_MARGIN_S, max(_LEAST_MARGIN_S, _MARGIN * timeout_s)) + _LATE * late_s
    return max(timeout_s / 2, timeout_s - margin_s)


@dataclass(slots=True)
class Anytime:
    """One such call. Its ticket is `partial`, and has the time at which it is answered for its deadline."""

    texts: PairTexts
    ticket: Ticket
    stage: TextStage
    workers: WorkerPool
    clock: Clock
    row_tokens: int
    """Likely tokens of a row."""
    note_encoded: Callable[[EncodedRows, float], Int32Array]
    """Books the next rows as tokenised, so many seconds after it came; their places among all."""
    unscored: Unscored | None = None
    """What the answer lacks, once it is there."""
    late_s: float = 0.0
    """How much later it was answered than it should have been, because the event loop had other things to do."""
    _reason: UnscoredReason = UnscoredReason.DEADLINE
    _sentence: str = _TOO_LATE
    _submitted: int = 0

    async def run(self) -> Float32Array:
        """[rows, outputs]: NaN where there is no score; ``unscored`` then says which, and why.

        Raises:
            InvalidInput: a text that cannot be read, among those that are.
            NotReady, EngineFault: as ``WorkerPool.submit``.
        """
        ticket = self.ticket
        ticket.output.fill(math.nan)  # no score is: a row without a finite one is refused
        left_s = None if ticket.deadline == math.inf else ticket.deadline - self.clock.monotonic()
        try:
            async with asyncio.timeout(left_s):
                await self._submit()
                await ticket.done
        except TimeoutError:
            self.late_s = max(0.0, self.clock.monotonic() - ticket.deadline)
        finally:
            self.workers.cancel(ticket)
            ticket.abandon()
        scores = ticket.output.copy()  # what still runs may write into the other
        missing = np.flatnonzero(np.isnan(scores[:, 0])).tolist()
        if missing:
            self.unscored = Unscored(tuple(missing), self._reason, self._sentence)
        return scores

    async def _submit(self) -> None:
        """Lets in as many rows as there is room for, the first ones."""
        rows, begin = self.texts.rows, 0
        await off_loop(self.texts.characters > _LARGE_CHARACTERS, self.texts.check)
        try:
            for number in range(_ROUNDS):
                count, objection = self.workers.expect_some(self.ticket, rows - begin, self.row_tokens)
                if objection is not None and not number:  # later it is its own rows that are in the way
                    self._left_out(objection.late, objection.what)
                if count:
                    await self._read(begin, begin + count)
                begin += count
                if not count or begin == rows:
                    break
        except (Overloaded, DeadlineExceeded) as error:  # more tokens than was thought, or too much text waits
            self._left_out(isinstance(error, DeadlineExceeded), error.message)
        if rows > self._submitted:
            self.workers.forgo(self.ticket, rows - self._submitted)

    def _left_out(self, late: bool, sentence: str) -> None:
        self._reason = UnscoredReason.DEADLINE if late else UnscoredReason.OVERLOADED
        self._sentence = sentence

    async def _read(self, begin: int, end: int) -> None:
        started = self.clock.monotonic()
        part = self.texts.part(begin, end)
        async with aclosing(self.stage.encode(part, stream=part.may_be_split, caller=self.ticket.caller)) as slices:
            async for rows in slices:
                at = self.note_encoded(rows, self.clock.monotonic() - started)
                for first in range(0, len(rows), _PART_ROWS):
                    self._submit_part(rows, at, range(first, min(first + _PART_ROWS, len(rows))))

    def _submit_part(self, rows: EncodedRows, at: Int32Array, chosen: range) -> None:
        some = rows if len(chosen) == len(rows) else rows.subset(chosen)
        self.workers.submit(self.ticket, some, at[chosen.start : chosen.stop])
        self._submitted += len(chosen)
