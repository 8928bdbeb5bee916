"""What is let in, what runs next, what has come too late: pure logic with the time as an argument.

No thread, no lock, no input or output, no tensor: `worker` calls it under one lock, tests and simulations call it in
virtual time. All models of an engine share one queue and one set of workers.

Guarantees
- Every admitted row is run exactly once, unless its request is cancelled, fails or expires first; then its waiting rows
  are never run, and what is running of it is thrown away.
- No row enters a batch at or after its deadline. A request that could not be done in time any more, even if it
  were the only one, is dropped when its turn comes, before it costs more.
- What is let in is expected to be in time, and to make nobody else late; see `admission`.
- Between callers: see `callers`. All of the following is about requests of one caller, or of callers on one step.
- Order: a request is *due* its priority's patience (`priority`) and ``STRETCH`` times its own time after its arrival,
  or as long before its deadline as it would take if that is earlier, but never before its arrival. Every batch contains
  at least one row of the request that is due first, over all models, of equals the one admitted first; others only ride
  along in batches that it had to have anyway. Within a priority and without deadlines, requests of one size go in the
  order of arrival, and a small one overtakes a large one that came shortly before: each waits in proportion to its own
  time, not to its neighbours'. Among requests that have deadlines it is the order of the latest possible start.
- Bounded waiting (ageing): what arrives after a request is due is due later. So the last row of a request is in a batch
  at the latest when as many batches have begun as rows were admitted until it was due. Whatever its priority, length or
  model, that is the bound it would have if it had arrived when it was due and all went by order of arrival.
- The same calls at the same times give the same batches.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Generic

import numpy as np
import numpy.typing as npt

from .admission import SAFETY, STRETCH, Admission, Objection, QueueLimits, Wanted
from .agenda import Agenda
from .batch import Batch as Batch
from .batch import Decision, ModelWork, padding_of
from .batch import SchedulerStatistics as SchedulerStatistics
from .callers import Booking, Callers
from .estimates import BatchingRules as BatchingRules
from .estimates import Estimates
from .pace import Pace
from .planner import Plan, Planner
from .pool import BatchRows, P, Pool, QueuedRows
from .priority import Priority

_GUESSED = 1.25
"""Work may be this many times what it was taken for before it was read, and is still let in unseen."""
_SHARED = 0.5
"""Part of a full batch that is run at once while several callers are about."""
_NEAREST = 512
"""Requests that are looked at for what may fill another's batches."""


class Scheduler(Generic[P]):
    """The queue of an engine. Not thread-safe."""

    def __init__(
        self,
        rules: Mapping[str, BatchingRules],
        planner: Planner,
        *,
        workers: int,
        queue_tokens: int,
        queue_s: float = math.inf,
        low_queue_s: float = math.inf,
        weights: Mapping[str, float] | None = None,
        stretch: float = STRETCH,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """All about ``rules``' models.

        Args:
            rules: by model.
            planner: makes the batches of models whose rows are padded.
            workers: batches that run at once.
            queue_tokens: most tokens that may wait.
            queue_s: longest wait of a request that is let in, by the estimate.
            low_queue_s: the same at LOW priority.
            weights: what callers get of the machine, relative to 1.
            stretch: how many times its own time a request gives way to what arrives later; 0 for none.
            random: numbers from 0 to 1 that spread push-back.
        """
        self._rules = dict(rules)
        self._pools: dict[str, Pool[P]] = {name: Pool(each.ladder) for name, each in rules.items()}
        self._estimates: Estimates[P] = Estimates(self._rules)
        self._planner = planner
        self._workers = workers
        self._callers: Callers[P] = Callers(weights)
        self._pace = Pace(workers)
        limits = QueueLimits(tokens=queue_tokens, wait_s=queue_s, low_wait_s=low_queue_s)
        self._admission: Admission[P] = Admission(
            self._callers, self._pace, workers=workers, limits=limits, stretch=stretch, random=random
        )
        self._open: dict[int, QueuedRows[P]] = {}
        self._deadlines: Agenda[QueuedRows[P]] = Agenda()
        self._running: dict[int, Batch[P]] = {}
        self._requests = 0
        self._batches = 0

    @property
    def queued_tokens(self) -> int:
        """Useful tokens that wait, all models together."""
        return sum(pool.tokens for pool in self._pools.values())

    @property
    def idle_workers(self) -> int:
        """Workers without a batch."""
        return self._workers - len(self._running)

    def expect(
        self, model: str, caller: str, priority: Priority, deadline: float, *, rows: int, row_tokens: int, now: float
    ) -> Booking:
        """Books work that will be admitted soon, so that what comes meanwhile counts with it; to be released.

        ``row_tokens``: tokens of a row, as far as one can tell.

        Raises:
            Overloaded, DeadlineExceeded: as ``admit``.
        """
        asked, row_s = self._estimates.of_unread(model, caller, priority, deadline, rows=rows, row_tokens=row_tokens)
        wanted = self._admission.wanted(asked, now)
        self._check(wanted, now)
        return self._book(wanted, row_s)

    def expect_some(
        self, model: str, caller: str, priority: Priority, deadline: float, *, rows: int, row_tokens: int, now: float
    ) -> tuple[Booking | None, Objection | None]:
        """As ``expect``, of as many of the rows as may come in; and what speaks against one more."""
        asked, row_s = self._estimates.of_unread(model, caller, priority, deadline, rows=rows, row_tokens=row_tokens)
        running_s, waiting_tokens = self._running_s(now), self.queued_tokens

        def attempt(count: int) -> tuple[Wanted, Objection | None]:
            some = dataclasses.replace(asked, rows=count, seconds=count * row_s, tokens=count * row_tokens)
            wanted = self._admission.wanted(some, now)
            return wanted, self._admission.objection(wanted, now, running_s=running_s, waiting_tokens=waiting_tokens)

        wanted, objection = attempt(rows)
        if objection is None:
            return self._book(wanted, row_s), None
        fitting, over, taken = 0, rows, None
        while over - fitting > 1:
            middle = (fitting + over) // 2
            wanted, found = attempt(middle)
            if found is None:
                fitting, taken = middle, wanted
            else:
                over, objection = middle, found
        return None if taken is None else self._book(taken, row_s), objection

    def release(self, booking: Booking, rows: int | None = None) -> None:
        """This many of its rows have come, or will not come; all of them unless said otherwise."""
        self._callers.unbook(booking, booking.rows if rows is None else rows)

    def admit(self, queued: QueuedRows[P], now: float, booking: Booking | None = None) -> None:
        """Takes a request in; rows that were booked take the place that was kept for them, and are due with the rest.

        Raises:
            InvalidInput: it alone is larger than the whole queue.
            Overloaded: the queue has no room for it now.
            DeadlineExceeded: its deadline has passed, would not be met, or would cost somebody else's.
        """
        self._admission.check_size(queued)
        wanted = self._wanted_of(queued, now)
        if booking is not None and booking.rows:
            booked_s = min(queued.waiting, booking.rows) * booking.row_s
            self.release(booking, queued.waiting)
            wanted = dataclasses.replace(wanted, due=booking.key[0])
            if wanted.asked.seconds > _GUESSED * booked_s and queued.deadline < math.inf:
                self._check(wanted, now, booked=True)
        else:
            self._check(wanted, now)
        queued.due, queued.seconds = wanted.due, wanted.asked.seconds
        queued.patient_until = wanted.patient_until
        queued.sequence, queued.arrival, queued.open = self._requests, now, True
        self._requests += 1
        self._open[queued.sequence] = queued
        self._callers.enter(queued)
        self._pools[queued.model].add(queued)
        if queued.deadline < math.inf:
            self._deadlines.add(queued.deadline, queued.sequence, queued)

    def due(self, queued: QueuedRows[P], now: float) -> float:
        """When a request would be due if it were admitted now."""
        return self._wanted_of(queued, now).due

    def cancel(self, queued: QueuedRows[P]) -> bool:
        """Closes a request whose caller has gone; its waiting rows leave at once. False if it was closed already."""
        if not queued.open:
            return False
        queued.open = False
        queued.dropped = queued.waiting
        del self._open[queued.sequence]
        self._deadlines.remove(queued.sequence)
        if queued.waiting:
            self._callers.leave(queued)
            self._pools[queued.model].remove(queued)
        return True

    def cancel_all(self) -> list[QueuedRows[P]]:
        """Closes every request; the closed ones, oldest first."""
        return [queued for queued in list(self._open.values()) if self.cancel(queued)]

    def next_batch(self, now: float) -> Decision[P]:
        """Work for one idle worker."""
        expired = self._expire(now)
        while (first := self._callers.first(now)) is not None and self._is_too_late(first, now):
            self.cancel(first)
            expired.append(first)
        if first is None:
            self._pace.idle()
            return Decision(None, expired)
        pool, rules = self._pools[first.model], self._rules[first.model]
        # The longest first: what is left for the end of a request is then short and spreads evenly over the workers.
        view = pool.view(max(first.by_level))
        counts = self._company(first, pool, now)
        if counts is not None:
            view = dataclasses.replace(view, counts=counts)
        share_s = self.estimated_wait_s(now) if self._workers > 1 and pool.rows > 1 else math.inf
        if self._callers.others_about(first.caller, now):
            # They shall not have to wait long for its end. Half of a full batch costs some per cent more, row for row.
            share_s = min(
                share_s, _SHARED * self._estimates.batch_s(first.model, max(first.by_level)) * rules.costs.factor
            )
        plan = (rules.planner or self._planner)(view, rules.costs, share_s=share_s, now=now)
        return Decision(self._start(first, plan, now), expired)

    def complete(self, batch: Batch[P], now: float, *, learn: bool = True) -> list[QueuedRows[P]]:
        """Takes back a batch that ran; the requests whose last row was in it, now closed.

        ``learn``: whether the time that it took is what such a batch takes.
        """
        took_s = now - batch.started
        if learn:
            self._rules[batch.model].costs.learn(batch.bucket.rows, batch.bucket.length, took_s)
            self._pace.learn(
                now,
                took_s=took_s,
                table_s=batch.table_s,
                rows_s=batch.rows_s,
                tokens=batch.tokens,
                under_load=batch.under_load,
            )
        finished = []
        for queued in self._end(batch):
            if queued.open and not queued.waiting and not queued.running:
                queued.finished = now
                self.cancel(queued)
                finished.append(queued)
        return finished

    def fail(self, batch: Batch[P]) -> list[QueuedRows[P]]:
        """Takes back a batch that could not run; its requests, now closed with all that waited of them."""
        return [queued for queued in self._end(batch) if self.cancel(queued)]

    def estimated_wait_s(self, now: float) -> float:
        """Seconds until all that is here would be done, the workers sharing it evenly."""
        seconds = self._running_s(now)
        for name, pool in self._pools.items():
            if pool.rows:
                seconds += float(pool.counts @ self._rules[name].costs.row_seconds())
        return seconds / self._workers

    @property
    def capacity_tokens_per_s(self) -> float:
        """What all workers do in a second: of such text as came lately; before that, by the tables, at best."""
        known = self._pace.tokens_per_s
        return self._pace.speed * self._estimates.best_tokens_per_s() if known is None else known

    def pushback_s(self, now: float) -> float:
        """When who is refused now should come back."""
        return self._admission.pushback_s(now, self.estimated_wait_s(now), 0.0)

    def statistics(self, now: float) -> SchedulerStatistics:
        """A snapshot."""
        running = dict.fromkeys(self._rules, 0)
        for batch in self._running.values():
            running[batch.model] += batch.rows
        return SchedulerStatistics(
            queued_rows=sum(pool.rows for pool in self._pools.values()),
            queued_tokens=self.queued_tokens,
            running_rows=sum(running.values()),
            running_batches=len(self._running),
            estimated_wait_s=self.estimated_wait_s(now),
            capacity_tokens_per_s=self.capacity_tokens_per_s,
            models={name: ModelWork(pool.rows, pool.tokens, running[name]) for name, pool in self._pools.items()},
        )

    def _book(self, wanted: Wanted, row_s: float) -> Booking:
        asked = wanted.asked
        booking = Booking(asked.caller, asked.deadline, (wanted.due, self._requests), asked.rows, row_s)
        self._requests += 1
        self._callers.book(booking)
        return booking

    def _check(self, wanted: Wanted, now: float, *, booked: bool = False) -> None:
        self._admission.check(
            wanted, now, running_s=self._running_s(now), waiting_tokens=self.queued_tokens, booked=booked
        )

    def _wanted_of(self, queued: QueuedRows[P], now: float) -> Wanted:
        return self._admission.wanted(self._estimates.of(queued), now)

    def _running_s(self, now: float) -> float:
        """Seconds that the batches that run still take, added up."""
        return sum(max(0.0, batch.started + batch.expected_s - now) for batch in self._running.values())

    def _is_too_late(self, queued: QueuedRows[P], now: float) -> bool:
        """Whether it would not be in time any more if all workers did nothing else from now on."""
        if queued.deadline == math.inf:
            return False
        least_s = queued.seconds * self._pace.factor / min(self._workers, queued.waiting)
        return now + least_s > queued.deadline

    def _company(self, first: QueuedRows[P], pool: Pool[P], now: float) -> npt.NDArray[np.int64] | None:
        """[levels] rows that may fill the batches of a request; None for all that wait.

        What fills its batches goes before it, so to say: as they are due, what can be done before its deadline, and
        nothing of callers who have had more than its own.
        """
        shares, left_s = self._callers.not_above(first.caller), math.inf
        if first.deadline < math.inf and len(first.by_level) > 1:
            left_s = ((first.deadline - now) / SAFETY - self._running_s(now) / self._workers) * self._pace.speed
            if sum(share.ledger.total for share in self._callers) <= left_s:
                left_s = math.inf
        if shares is None and left_s == math.inf:
            return None
        counts = np.zeros(len(pool.counts), np.int64)
        keys = (share.ledger for share in shares or [self._callers.share(first.caller)])
        for _, number in itertools.islice(itertools.chain.from_iterable(keys), _NEAREST):
            queued = self._open.get(number)
            if queued is None or queued.model != first.model:
                continue
            left_s -= queued.seconds
            if left_s < 0 and queued is not first:
                break
            for each, rows in queued.by_level.items():
                counts[each] += rows.waiting
        for each, rows in first.by_level.items():
            counts[each] = max(counts[each], rows.waiting)
        return counts

    def _begin(self, piece: BatchRows[P], now: float) -> float:
        """Books rows as begun; what the cost table says of them."""
        queued = piece.queued
        if math.isnan(queued.started):
            queued.started = now
        seconds = min(queued.seconds, len(piece.rows) * self._estimates.row_s[queued.model][piece.level])
        self._callers.begin(queued, seconds)
        return seconds

    def _start(self, first: QueuedRows[P], plan: Plan, now: float) -> Batch[P]:
        model = first.model
        pool, rules, bucket = self._pools[model], self._rules[model], plan.bucket
        pieces: list[BatchRows[P]] = []
        rows_s = 0.0
        for level, rows in plan.takes:
            for piece in pool.take(level, rows, first):
                rows_s += self._begin(piece, now)
                pieces.append(piece)
        if rules.planner is not None:
            longest = max(int(piece.queued.lengths[piece.rows].max()) for piece in pieces)
            tokens, count = sum(piece.tokens for piece in pieces), sum(len(piece.rows) for piece in pieces)
            bucket = rules.planner.bucket(tokens, count, longest)
        table_s = rules.costs.seconds(bucket.rows, bucket.length) / rules.costs.factor
        batch = Batch(
            number=self._batches,
            model=model,
            bucket=bucket,
            pieces=pieces,
            started=now,
            expected_s=table_s * self._pace.factor,
            rows_s=rows_s,
            table_s=table_s,
            under_load=self.queued_tokens > 0,
        )
        self._batches += 1
        self._running[batch.number] = batch
        return batch

    def _end(self, batch: Batch[P]) -> list[QueuedRows[P]]:
        """Books a batch as no longer running; its requests, each once."""
        del self._running[batch.number]
        for piece, padding in zip(batch.pieces, padding_of(batch), strict=True):
            piece.queued.running -= len(piece.rows)
            piece.queued.padded_tokens += padding
        return list({piece.queued.sequence: piece.queued for piece in batch.pieces}.values())

    def _expire(self, now: float) -> list[QueuedRows[P]]:
        expired = []
        while (queued := self._deadlines.first()) is not None and queued.deadline <= now:
            self.cancel(queued)
            expired.append(queued)
        return expired
