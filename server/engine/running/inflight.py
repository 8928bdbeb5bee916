"""Rows in flight: a row that is already queued or running for somebody is not queued again, but answered with it.

Stands between tickets and the scheduler, with the scheduler's verbs. The first ticket that brings a row *owns* it: the
row is in one of the ticket's requests. A ticket that brings an equal row while it is in flight *follows* it. That equal
rows have equal results whatever they are batched with is what makes this exact.

Guarantees
- Every ticket that was submitted is handed back once: finished, failed, expired or refused; but not if cancelled.
- A follower never waits for a row that may run later than its own would: it follows an owner that is due no later than
  it would be itself and whose deadline is no later than its own, or one that is running already.
- An owner that leaves takes no follower with it: the one that is due first becomes the owner and is queued in its own
  name, as if it came now. (What is running of the owner is still running for its followers.)
- Followers share what becomes of the batch that their row is in: its result, or its failure.
- A partial ticket does not end with what of it expires or is refused: it finishes with the rows that it has.

Not thread-safe, no clock: `worker` calls it under its lock, tests in virtual time.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import Overloaded, PairwireError
from ...runtime.base import Int32Array
from ..batching.admission import Objection
from ..batching.buckets import Ladder
from ..batching.pool import queue_rows
from ..batching.scheduler import Batch, Scheduler, SchedulerStatistics
from ..text.encoder import EncodedRows
from ..text.special_tokens import Row
from .sharing import Ended as Ended
from .sharing import QueuedTicketRows, Shared, is_no_later, rows_again, tickets_of
from .ticket import Ticket, TicketRows
from .written import Written

TicketBatch = Batch[TicketRows]


class Inflight:
    """All tickets that wait, over the scheduler that runs their rows."""

    def __init__(self, scheduler: Scheduler[TicketRows], ladders: Mapping[str, Ladder], *, queue_tokens: int) -> None:
        """``queue_tokens`` is the scheduler's own."""
        self._scheduler = scheduler
        self._shared = {name: Shared(ladder) for name, ladder in ladders.items()}
        self._queue_tokens = queue_tokens
        self._reserved: dict[Ticket, tuple[int, int]] = {}  # rows that are still to come, most tokens of each
        self._tickets: dict[Ticket, None] = {}
        self._numbers = itertools.count()

    @property
    def idle_workers(self) -> int:
        """Workers without a batch."""
        return self._scheduler.idle_workers

    @property
    def waiting(self) -> bool:
        """Whether rows wait for a worker."""
        return self._scheduler.queued_tokens > 0

    def reserve(self, ticket: Ticket, rows: int, row_tokens: int) -> bool:
        """Keeps room in an empty queue for a ticket whose rows will come in parts, until they came or it is closed."""
        free = self._queue_tokens - self._reserved_tokens()
        if self._scheduler.queued_tokens or not self._scheduler.idle_workers or rows * row_tokens > free:
            return False
        self._reserved[ticket] = (rows, row_tokens)
        return True

    def expect(self, ticket: Ticket, rows: int, row_tokens: int, now: float) -> None:
        """Books the rows of a ticket, which will come in one or several parts; ``row_tokens`` is a guess.

        Raises:
            Overloaded, DeadlineExceeded: as ``Scheduler.admit``.
        """
        ticket.booking = self._scheduler.expect(
            ticket.model,
            ticket.caller,
            ticket.priority,
            ticket.deadline,
            rows=rows,
            row_tokens=row_tokens,
            now=now,
        )

    def expect_some(self, ticket: Ticket, rows: int, row_tokens: int, now: float) -> tuple[int, Objection | None]:
        """As ``expect``, of as many of the rows as may come in: their number, and what speaks against one more."""
        if ticket.booking is not None:
            self._scheduler.release(ticket.booking)
        ticket.booking, objection = self._scheduler.expect_some(
            ticket.model,
            ticket.caller,
            ticket.priority,
            ticket.deadline,
            rows=rows,
            row_tokens=row_tokens,
            now=now,
        )
        return 0 if ticket.booking is None else ticket.booking.rows, objection

    def forgo(self, ticket: Ticket, rows: int) -> Ended:
        """This many rows of a partial ticket will not be submitted."""
        ended = Ended()
        if ticket.open:
            if ticket.booking is not None:
                self._scheduler.release(ticket.booking)
            self._lose(ticket, rows, ended)
        return ended

    def submit(self, ticket: Ticket, encoded: EncodedRows, at: Int32Array, now: float, *, known: int = 0) -> int:
        """Takes rows of a ticket in; row i is for row ``at[i]`` of its output. The number of rows that were queued.

        ``known`` more rows have their results already; a ticket that then lacks none is closed here. May be called
        several times for one ticket; for one that has ended meanwhile, nothing happens.

        Raises:
            InvalidInput, Overloaded, DeadlineExceeded: as ``Scheduler.admit``; nothing was taken in.
        """
        if not ticket.open:
            return 0
        shared = self._shared[ticket.model]
        shared.special = encoded.special
        count = len(encoded)
        if shared.owners.keys().isdisjoint(encoded.rows) and len(set(encoded.rows)) == count:
            if count:
                self._queue(shared, ticket, encoded, at, now)
        else:
            count = self._share(shared, ticket, encoded, at, now)
        if ticket not in self._tickets:
            self._tickets[ticket] = None
            ticket.arrival = now
        if ticket in self._reserved:
            rows, tokens = self._reserved[ticket]
            self._reserved[ticket] = (rows - len(encoded) - known, tokens)
        if ticket.booking is not None:  # what follows others, or is known, needs no room
            self._scheduler.release(ticket.booking, len(encoded) - count + known)
        ticket.left -= known
        if not ticket.left:
            self._retire(ticket)
        return count

    def cancel(self, ticket: Ticket, now: float) -> Ended:
        """Closes a ticket whose caller has gone; what became of its followers."""
        ended = Ended()
        if ticket.open:
            self._close([ticket], ended, now)
        return ended

    def running(self) -> set[Ticket]:
        """The tickets that a batch runs for now, those that follow its rows included."""
        found = {ticket for ticket in self._tickets if any(queued.running for queued in ticket.parts)}
        for shared in self._shared.values():
            for row, followers in shared.followers.items():
                if (owner := shared.owners.get(row)) is not None and owner.running:
                    found.update(ticket for *_, ticket, _ in followers)
        return found

    def cancel_all(self) -> list[Ticket]:
        """Closes every ticket; the closed ones, oldest first."""
        closed = list(self._tickets)
        self._scheduler.cancel_all()
        for ticket in closed:
            ticket.open = False
        self._tickets.clear()
        self._reserved.clear()
        for shared in self._shared.values():
            shared.owners.clear()
            shared.followers.clear()
        return closed

    def next_batch(self, now: float) -> tuple[TicketBatch | None, Ended]:
        """Work for one idle worker, and the tickets that expired."""
        ended = Ended()
        while True:
            decision = self._scheduler.next_batch(now)
            self._expire(decision.expired, ended, now)
            # Followers of what has expired may have been queued just now.
            if decision.batch is not None or not decision.expired:
                return decision.batch, ended

    def complete(self, batch: TicketBatch, results: Written, now: float, *, learn: bool = True) -> Ended:
        """Takes back a batch that ran, with its results [rows or more, outputs]; followers get theirs here.

        The rows of the batch's own tickets must have been written already. ``learn`` as in ``Scheduler.complete``.
        """
        shared = self._shared[batch.model]
        finite = results.finite()
        self._scheduler.complete(batch, now, learn=learn)
        ended = Ended()
        rejected: dict[Ticket, tuple[int, int]] = {}
        answered: dict[Ticket, int] = {}
        number = 0
        for piece in batch.pieces:
            part = piece.queued.payload
            answered[part.ticket] = answered.get(part.ticket, 0) + len(piece.rows)
            for index in piece.rows.tolist():
                row = part.encoded.rows[index]
                followers = shared.land(row, piece.queued)
                for *_, ticket, at in followers:
                    answered[ticket] = answered.get(ticket, 0) + 1
                    results.into(ticket, at, number)
                if not finite[number]:
                    for ticket, at in [(part.ticket, int(part.at[index])), *((each[3], each[4]) for each in followers)]:
                        rejected.setdefault(ticket, (at, number))
                shared.count += len(followers)
                number += 1
        for ticket, rows in answered.items():
            self._count(ticket, rows, batch, now)
            if ticket.open and not ticket.left and ticket not in rejected:
                ended.finished.append(ticket)
        ended.rejected.extend((ticket, *where) for ticket, where in rejected.items() if ticket.open)
        for ticket in ended.finished:  # nothing of theirs is in flight any more
            self._retire(ticket)
        self._close([ticket for ticket, *_ in ended.rejected], ended, now)
        return ended

    def fail(self, batch: TicketBatch, now: float) -> Ended:
        """Takes back a batch that could not run; its tickets and those that followed its rows have failed."""
        shared = self._shared[batch.model]
        failed: dict[Ticket, None] = {}
        for piece in batch.pieces:
            part = piece.queued.payload
            failed[part.ticket] = None
            for index in piece.rows.tolist():
                for *_, ticket, _ in shared.land(part.encoded.rows[index], piece.queued):
                    failed[ticket] = None
        ended = Ended(failed=[ticket for ticket in failed if ticket.open])
        self._scheduler.fail(batch)
        self._close(ended.failed, ended, now)
        return ended

    def statistics(self, now: float) -> SchedulerStatistics:
        """What is queued and running."""
        return self._scheduler.statistics(now)

    def shared_rows(self) -> dict[str, int]:
        """By model: rows so far that were answered with the result of an equal one."""
        return {name: shared.count for name, shared in self._shared.items()}

    def _share(self, shared: Shared, ticket: Ticket, encoded: EncodedRows, at: Int32Array, now: float) -> int:
        """Queues the rows that nobody else has in flight, and follows others with the rest; how many were queued."""
        due = self._scheduler.due(self._queue_rows(shared, ticket, encoded, at), now)  # if nothing were shared
        own: dict[Row, int] = {}
        following: list[int] = []
        for index, row in enumerate(encoded.rows):
            owner = shared.owners.get(row)
            if row in own or (owner is not None and is_no_later(owner, due, ticket.deadline)):
                following.append(index)
            else:
                own[row] = index
        if own:
            chosen = list(own.values())
            self._queue(shared, ticket, encoded.subset(chosen), at[chosen], now)
        for index in following:
            entry = (due, ticket.deadline, next(self._numbers), ticket, int(at[index]))
            heapq.heappush(shared.followers.setdefault(encoded.rows[index], []), entry)
        return len(own)

    def _queue(self, shared: Shared, ticket: Ticket, encoded: EncodedRows, at: Int32Array, now: float) -> None:
        queued = self._queue_rows(shared, ticket, encoded, at)
        if self._reserved:
            self._check_reserved(ticket, queued.tokens, now)
        self._scheduler.admit(queued, now, ticket.booking)
        ticket.parts.append(queued)
        for row in encoded.rows:
            shared.owners.setdefault(row, queued)  # a more urgent row runs next to the one that others follow

    def _reserved_tokens(self) -> int:
        return sum(rows * tokens for rows, tokens in self._reserved.values())

    def _check_reserved(self, ticket: Ticket, tokens: int, now: float) -> None:
        """Room that is kept for one ticket is not given to another."""
        queued, reserved = self._scheduler.queued_tokens, self._reserved_tokens()
        over = queued + reserved + tokens - self._queue_tokens
        if over > 0 and ticket not in self._reserved:
            retry_after_s = self._scheduler.pushback_s(now)
            raise Overloaded(
                f"the queue holds {queued} tokens of at most {self._queue_tokens}, up to {reserved} more are on their "
                f"way, and there is no room for another {tokens}; try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )

    @staticmethod
    def _queue_rows(shared: Shared, ticket: Ticket, encoded: EncodedRows, at: Int32Array) -> QueuedTicketRows:
        part = TicketRows(ticket, encoded, at)
        return queue_rows(
            shared.ladder,
            ticket.model,
            encoded.lengths,
            part,
            deadline=ticket.deadline,
            priority=ticket.priority,
            field=ticket.field,
            caller=ticket.caller,
        )

    @staticmethod
    def _count(ticket: Ticket, rows: int, batch: TicketBatch, now: float) -> None:
        if not ticket.open:
            return
        ticket.left -= rows
        begun = max(batch.started, ticket.arrival)
        # Who follows a batch in the moment between its end and its booking has arrived after it ended.
        ended = max(now, begun)
        first = math.isnan(ticket.started)
        ticket.started = begun if first else min(ticket.started, begun)
        ticket.finished = ended if first else max(ticket.finished, ended)

    def _retire(self, ticket: Ticket) -> None:
        ticket.open = False
        if ticket.booking is not None:
            self._scheduler.release(ticket.booking)
        ticket.padded_tokens = sum(queued.padded_tokens for queued in ticket.parts)
        ticket.parts.clear()  # they point back at the ticket: do not leave rings to the garbage collector
        self._tickets.pop(ticket, None)
        self._reserved.pop(ticket, None)

    def _expire(self, requests: Sequence[QueuedTicketRows], ended: Ended, now: float) -> None:
        """Closes the tickets of what has come too late; of a partial one only that is lost."""
        tickets = tickets_of(requests)
        whole = [ticket for ticket in tickets if not ticket.partial]
        ended.expired.extend(whole)
        lost = [queued for queued in requests if queued.payload.ticket.partial]
        for queued in lost:
            if queued.payload.ticket.open:
                self._lose(queued.payload.ticket, queued.dropped, ended)
        self._close(whole, ended, now)
        self._pass_on(lost, ended, now)

    def _lose(self, ticket: Ticket, rows: int, ended: Ended) -> None:
        """A partial ticket does without this many of its rows."""
        ticket.left -= rows
        if not ticket.left:
            self._retire(ticket)
            ended.finished.append(ticket)

    def _close(self, tickets: Sequence[Ticket], ended: Ended, now: float) -> None:
        """Closes tickets; rows of theirs that others wait for are queued in the name of one of those."""
        parts = [queued for ticket in tickets for queued in ticket.parts]
        for ticket in tickets:  # all of them before any is replaced: none may inherit
            self._retire(ticket)
        self._pass_on(parts, ended, now)

    def _pass_on(self, parts: Sequence[QueuedTicketRows], ended: Ended, now: float) -> None:
        """Queues rows that are given up, and that others wait for, in the name of one of those."""
        leaving = list(parts)
        while leaving:
            heirs: dict[Ticket, list[tuple[Row, int]]] = {}
            for queued in leaving:
                self._bequeath(queued, heirs)
            leaving = []
            for ticket, rows in heirs.items():
                try:
                    self._inherit(ticket, rows, now)
                    ended.requeued += len(rows)
                except PairwireError as error:
                    if ticket.partial:
                        leaving.append(ticket.parts[-1])  # what was refused just now
                        self._lose(ticket, len(rows), ended)
                        continue
                    leaving += ticket.parts
                    self._retire(ticket)
                    ended.refused.append((ticket, error))

    def _bequeath(self, queued: QueuedTicketRows, heirs: dict[Ticket, list[tuple[Row, int]]]) -> None:
        """Gives up the rows of a request whose ticket has closed, and finds who needs them."""
        all_running = queued.open and not queued.waiting
        self._scheduler.cancel(queued)
        if all_running:
            return
        shared = self._shared[queued.model]
        for row in queued.payload.encoded.rows:
            if shared.owners.get(row) is not queued:
                continue
            del shared.owners[row]
            followers = shared.followers.get(row)
            if followers is None:
                continue
            while followers:
                *_, ticket, at = heapq.heappop(followers)
                if ticket.open:
                    heirs.setdefault(ticket, []).append((row, at))
                    break
            if not followers:
                del shared.followers[row]

    def _inherit(self, ticket: Ticket, rows: Sequence[tuple[Row, int]], now: float) -> None:
        """Queues rows that a ticket followed; the other followers follow it from now on, even if it is refused."""
        shared = self._shared[ticket.model]
        assert shared.special is not None, "rows are in flight that were never submitted"
        encoded = rows_again(shared.special, [row for row, _ in rows])
        queued = self._queue_rows(shared, ticket, encoded, np.array([at for _, at in rows], np.int32))
        ticket.parts.append(queued)
        shared.owners.update(dict.fromkeys(encoded.rows, queued))
        self._scheduler.admit(queued, now)
