"""Who is admitted, who runs next, who has come too late: pure logic with the time as an argument.

No thread, no lock, no input or output, no tensor: `worker` calls it under one lock, tests and simulations call it in
virtual time. All models of an engine share one queue and one set of workers.

Guarantees
- Every admitted row is run exactly once, unless its request is cancelled, fails or expires first; then its waiting rows
  are never run, and what is running of it is thrown away.
- No row enters a batch at or after its request's deadline.
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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from ...errors import DeadlineExceeded, InvalidInput, Overloaded
from .agenda import Agenda
from .buckets import Bucket, Ladder
from .cost import Costs
from .planner import PackingPlanner, Plan, Planner
from .pool import BatchRows, P, Pool, QueuedRows

STRETCH = 4.0
"""How many times its own time a request gives way to what arrives later. In mixed traffic at 80 % of capacity 4 cuts
the median latency to a quarter of that of plain arrival order and the 99th percentile of the slowdown to half, while
the 99th percentile of the latency stays; 8 raises that by a fifth."""
_OPTIMISM = 0.5
"""A request is refused for a deadline only if it could not be met even if all went twice as fast as estimated."""


@dataclass(frozen=True, eq=False, slots=True)
class BatchingRules:
    """How batches of one model are made: their shapes, what they cost, who picks them."""

    ladder: Ladder
    costs: Costs
    planner: PackingPlanner | None = None
    """What makes its batches, where its rows are not padded."""


@dataclass(frozen=True, eq=False, slots=True)
class Batch(Generic[P]):
    """Rows to run as one bucket."""

    number: int
    """Unique within a scheduler."""
    model: str
    bucket: Bucket
    pieces: list[BatchRows[P]]
    started: float
    expected_s: float
    """By the cost table."""

    @property
    def rows(self) -> int:
        """Rows with text."""
        return sum(len(piece.rows) for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """Useful tokens."""
        return sum(piece.tokens for piece in self.pieces)


@dataclass(frozen=True, eq=False, slots=True)
class Decision(Generic[P]):
    """What a worker that asked for work shall do."""

    batch: Batch[P] | None
    """None: wait until something is admitted."""
    expired: list[QueuedRows[P]]
    """Closed just now because their deadline has passed; to be told."""


@dataclass(frozen=True, slots=True)
class ModelWork:
    """One model's work at one moment."""

    queued_rows: int
    queued_tokens: int
    running_rows: int


@dataclass(frozen=True, slots=True)
class SchedulerStatistics:
    """All work at one moment."""

    queued_rows: int
    queued_tokens: int
    running_rows: int
    running_batches: int
    estimated_wait_s: float
    models: Mapping[str, ModelWork]


class Scheduler(Generic[P]):
    """The queue of an engine. Not thread-safe."""

    def __init__(
        self,
        rules: Mapping[str, BatchingRules],
        planner: Planner,
        *,
        workers: int,
        queue_tokens: int,
        stretch: float = STRETCH,
    ) -> None:
        """``stretch``: how many times its own time a request gives way to what arrives later; 0 for none."""
        self._stretch = stretch
        self._rules = dict(rules)
        self._pools: dict[str, Pool[P]] = {name: Pool(each.ladder) for name, each in rules.items()}
        self._planner = planner
        self._workers = workers
        self._queue_tokens = queue_tokens
        self._open: dict[int, QueuedRows[P]] = {}
        self._waiting: Agenda[QueuedRows[P]] = Agenda()
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

    def admit(self, queued: QueuedRows[P], now: float) -> None:
        """Takes a request in.

        Raises:
            InvalidInput: it alone is larger than the whole queue.
            Overloaded: the queue has no room for it now.
            DeadlineExceeded: its deadline has passed, or cannot be met even by an optimistic estimate.
        """
        self._check_room(queued, now)
        own_s = self._seconds_alone(queued)
        queued.due = self._due(queued, own_s, now)
        if queued.deadline < math.inf:
            self._check_deadline(queued, own_s, now)
        queued.sequence, queued.arrival, queued.open = self._requests, now, True
        self._requests += 1
        self._open[queued.sequence] = queued
        self._waiting.add(queued.due, queued.sequence, queued)
        self._pools[queued.model].add(queued)
        if queued.deadline < math.inf:
            self._deadlines.add(queued.deadline, queued.sequence, queued)

    def due(self, queued: QueuedRows[P], now: float) -> float:
        """When a request would be due if it were admitted now."""
        return self._due(queued, self._seconds_alone(queued), now)

    def cancel(self, queued: QueuedRows[P]) -> bool:
        """Closes a request whose caller has gone; its waiting rows leave at once. False if it was closed already."""
        if not queued.open:
            return False
        queued.open = False
        del self._open[queued.sequence]
        self._deadlines.remove(queued.sequence)
        if self._waiting.remove(queued.sequence):
            self._pools[queued.model].remove(queued)
        return True

    def cancel_all(self) -> list[QueuedRows[P]]:
        """Closes every request; the closed ones, oldest first."""
        return [queued for queued in list(self._open.values()) if self.cancel(queued)]

    def next_batch(self, now: float) -> Decision[P]:
        """Work for one idle worker."""
        expired = self._expire(now)
        first = self._waiting.first()
        if first is None:
            return Decision(None, expired)
        pool, rules = self._pools[first.model], self._rules[first.model]
        # The longest first: what is left for the end of a request is then short and spreads evenly over the workers.
        view = pool.view(max(first.by_level))
        share_s = self.estimated_wait_s(now) if self._workers > 1 and pool.rows > 1 else math.inf
        plan = (rules.planner or self._planner)(view, rules.costs, share_s=share_s, now=now)
        batch = self._start(first.model, plan, now)
        return Decision(batch, expired)

    def complete(self, batch: Batch[P], now: float, *, learn: bool = True) -> list[QueuedRows[P]]:
        """Takes back a batch that ran; the requests whose last row was in it, now closed.

        ``learn``: whether the time that it took is what such a batch takes.
        """
        if learn:
            self._rules[batch.model].costs.learn(batch.bucket.rows, batch.bucket.length, now - batch.started)
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
        return self._wait_s(now, math.inf)

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
            models={name: ModelWork(pool.rows, pool.tokens, running[name]) for name, pool in self._pools.items()},
        )

    def _check_room(self, queued: QueuedRows[P], now: float) -> None:
        if queued.tokens > self._queue_tokens:
            raise InvalidInput(
                queued.field,
                f"{queued.tokens} tokens are more than the whole queue holds ({self._queue_tokens}); "
                "split the input over several requests",
            )
        waiting = self.queued_tokens
        over = waiting + queued.tokens - self._queue_tokens
        if over > 0:
            retry_after_s = self.estimated_wait_s(now) * over / waiting
            raise Overloaded(
                f"the queue holds {waiting} tokens of at most {self._queue_tokens} and has no room for "
                f"{queued.tokens} more; try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )

    def _check_deadline(self, queued: QueuedRows[P], own_s: float, now: float) -> None:
        left = queued.deadline - now
        if left <= 0:
            raise DeadlineExceeded("the deadline had passed before the request was queued; allow more time")
        estimate = self._wait_s(now, queued.due) + own_s
        if _OPTIMISM * estimate > left:
            raise DeadlineExceeded(
                f"the answer would take about {estimate:.3f} s and the deadline is in {left:.3f} s; "
                "allow more time, send less, or try another server"
            )

    def _due(self, queued: QueuedRows[P], own_s: float, now: float) -> float:
        due = now + queued.priority.patience_s + self._stretch * own_s
        return due if queued.deadline == math.inf else max(now, min(due, queued.deadline - own_s))

    def _seconds_alone(self, queued: QueuedRows[P]) -> float:
        """What the request would take if nothing else were here."""
        row_seconds = self._rules[queued.model].costs.row_seconds()
        total = sum(level_rows.waiting * float(row_seconds[level]) for level, level_rows in queued.by_level.items())
        return total / min(self._workers, queued.waiting)

    def _wait_s(self, now: float, due: float) -> float:
        """Seconds until all that runs, and all that waits and is due by then, would be done, shared evenly."""
        seconds = sum(max(0.0, batch.started + batch.expected_s - now) for batch in self._running.values())
        for name, pool in self._pools.items():
            share = 1.0 if due == math.inf else pool.share_due_by(due)
            if pool.rows and share:
                seconds += share * float(pool.counts @ self._rules[name].costs.row_seconds())
        return seconds / self._workers

    def _start(self, model: str, plan: Plan, now: float) -> Batch[P]:
        pool = self._pools[model]
        pieces = [piece for level, rows in plan.takes for piece in pool.take(level, rows)]
        for queued in (piece.queued for piece in pieces):
            if math.isnan(queued.started):
                queued.started = now
            if not queued.waiting:
                self._waiting.remove(queued.sequence)
        rules, bucket = self._rules[model], plan.bucket
        if rules.planner is not None:
            longest = max(int(piece.queued.lengths[piece.rows].max()) for piece in pieces)
            tokens, rows = sum(piece.tokens for piece in pieces), sum(len(piece.rows) for piece in pieces)
            bucket = rules.planner.bucket(tokens, rows, longest)
        expected_s = rules.costs.seconds(bucket.rows, bucket.length)
        batch = Batch(self._batches, model, bucket, pieces, now, expected_s)
        self._batches += 1
        self._running[batch.number] = batch
        return batch

    def _end(self, batch: Batch[P]) -> list[QueuedRows[P]]:
        """Books a batch as no longer running; its requests, each once."""
        del self._running[batch.number]
        for piece, padding in zip(batch.pieces, _padding(batch), strict=True):
            piece.queued.running -= len(piece.rows)
            piece.queued.padded_tokens += padding
        return list({piece.queued.sequence: piece.queued for piece in batch.pieces}.values())

    def _expire(self, now: float) -> list[QueuedRows[P]]:
        expired = []
        while (queued := self._deadlines.first()) is not None and queued.deadline <= now:
            self.cancel(queued)
            expired.append(queued)
        return expired


def _padding(batch: Batch[P]) -> list[int]:
    """Padding of each piece: of its own rows, or its share of that at the end where rows stand one after the other."""
    if batch.bucket.rows == batch.rows:
        return [len(piece.rows) * batch.bucket.length - piece.tokens for piece in batch.pieces]
    left, tokens = batch.bucket.tokens - batch.tokens, batch.tokens
    shares = []
    for piece in batch.pieces:
        share = round(left * piece.tokens / tokens)
        shares.append(share)
        left, tokens = left - share, tokens - piece.tokens
    return shares
