"""Who is admitted, who runs next, who has come too late: pure logic with the time as an argument.

No thread, no lock, no input or output, no tensor: `worker` calls it under one lock, tests and simulations call it in
virtual time. All models of an engine share one queue and one set of workers.

Guarantees
- Every admitted row is run exactly once, unless its request is cancelled, fails or expires first; then its waiting rows
  are never run, and what is running of it is thrown away.
- No row enters a batch at or after its request's deadline.
- Bounded waiting: every batch contains at least one row of the oldest request that has waiting rows, over all models.
  So a row enters a batch at the latest when as many batches have begun as rows were admitted before the end of its own
  request: younger rows only ride along in batches that older ones had to have anyway.
- The same calls at the same times give the same batches.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from ..errors import DeadlineExceeded, InvalidInput, Overloaded
from .buckets import Bucket, Ladder
from .cost import CostTable
from .planner import Plan, Planner
from .pool import P, Piece, Pool, Request

_OPTIMISM = 0.5
"""A request is refused for a deadline only if it could not be met even if all went twice as fast as estimated."""
_SPARE_DEADLINES = 64
"""Entries of closed requests that the heap of deadlines may hold before it is swept, beside as many as are open."""


@dataclass(frozen=True, eq=False, slots=True)
class Lane:
    """What the scheduler must know of a model."""

    ladder: Ladder
    costs: CostTable


@dataclass(frozen=True, eq=False, slots=True)
class Batch(Generic[P]):
    """Rows to run as one bucket."""

    number: int
    """Unique within a scheduler."""
    model: str
    bucket: Bucket
    pieces: list[Piece[P]]
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
    expired: list[Request[P]]
    """Closed just now because their deadline has passed; to be told."""


@dataclass(frozen=True, slots=True)
class LaneStatistics:
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
    lanes: Mapping[str, LaneStatistics]


class Scheduler(Generic[P]):
    """The queue of an engine. Not thread-safe."""

    def __init__(self, lanes: Mapping[str, Lane], planner: Planner, *, workers: int, queue_tokens: int) -> None:
        self._lanes = dict(lanes)
        self._pools: dict[str, Pool[P]] = {name: Pool(lane.ladder) for name, lane in lanes.items()}
        self._planner = planner
        self._workers = workers
        self._queue_tokens = queue_tokens
        self._open: dict[int, Request[P]] = {}
        self._waiting: OrderedDict[int, Request[P]] = OrderedDict()
        self._running: dict[int, Batch[P]] = {}
        self._deadlines: list[tuple[float, int]] = []
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

    def admit(self, request: Request[P], now: float) -> None:
        """Takes a request in.

        Raises:
            InvalidInput: it alone is larger than the whole queue.
            Overloaded: the queue has no room for it now.
            DeadlineExceeded: its deadline has passed, or cannot be met even by an optimistic estimate.
        """
        self._check_room(request, now)
        self._check_deadline(request, now)
        request.sequence, request.arrival, request.open = self._requests, now, True
        self._requests += 1
        self._open[request.sequence] = request
        self._waiting[request.sequence] = request
        self._pools[request.model].add(request)
        if request.deadline < math.inf:
            self._sweep_deadlines()
            heapq.heappush(self._deadlines, (request.deadline, request.sequence))

    def cancel(self, request: Request[P]) -> bool:
        """Closes a request whose caller has gone; its waiting rows leave at once. False if it was closed already."""
        if not request.open:
            return False
        request.open = False
        del self._open[request.sequence]
        if self._waiting.pop(request.sequence, None) is not None:
            self._pools[request.model].remove(request)
        return True

    def cancel_all(self) -> list[Request[P]]:
        """Closes every request; the closed ones, oldest first."""
        return [request for request in list(self._open.values()) if self.cancel(request)]

    def next_batch(self, now: float) -> Decision[P]:
        """Work for one idle worker."""
        expired = self._expire(now)
        if not self._waiting:
            return Decision(None, expired)
        oldest = next(iter(self._waiting.values()))
        pool, lane = self._pools[oldest.model], self._lanes[oldest.model]
        # The longest first: what is left for the end of a request is then short and spreads evenly over the workers.
        view = pool.view(max(oldest.segments))
        plan = self._planner(view, lane.costs, idle_workers=self.idle_workers, now=now)
        batch = self._start(oldest.model, plan, now)
        return Decision(batch, expired)

    def complete(self, batch: Batch[P], now: float) -> list[Request[P]]:
        """Takes back a batch that ran; the requests whose last row was in it, now closed."""
        self._lanes[batch.model].costs.learn(batch.bucket.rows, batch.bucket.length, now - batch.started)
        finished = []
        for request in self._end(batch):
            if request.open and not request.waiting and not request.running:
                request.finished = now
                self.cancel(request)
                finished.append(request)
        return finished

    def fail(self, batch: Batch[P]) -> list[Request[P]]:
        """Takes back a batch that could not run; its requests, now closed with all that waited of them."""
        return [request for request in self._end(batch) if self.cancel(request)]

    def estimated_wait_s(self, now: float) -> float:
        """Seconds until all that is here would be done, the workers sharing it evenly."""
        running = sum(max(0.0, batch.started + batch.expected_s - now) for batch in self._running.values())
        queued = sum(
            float(pool.counts @ self._lanes[name].costs.row_seconds())
            for name, pool in self._pools.items()
            if pool.rows
        )
        return (running + queued) / self._workers

    def statistics(self, now: float) -> SchedulerStatistics:
        """A snapshot."""
        running = dict.fromkeys(self._lanes, 0)
        for batch in self._running.values():
            running[batch.model] += batch.rows
        return SchedulerStatistics(
            queued_rows=sum(pool.rows for pool in self._pools.values()),
            queued_tokens=self.queued_tokens,
            running_rows=sum(running.values()),
            running_batches=len(self._running),
            estimated_wait_s=self.estimated_wait_s(now),
            lanes={name: LaneStatistics(pool.rows, pool.tokens, running[name]) for name, pool in self._pools.items()},
        )

    def _check_room(self, request: Request[P], now: float) -> None:
        if request.tokens > self._queue_tokens:
            raise InvalidInput(
                request.field,
                f"{request.tokens} tokens are more than the whole queue holds ({self._queue_tokens}); "
                "split the input over several requests",
            )
        queued = self.queued_tokens
        over = queued + request.tokens - self._queue_tokens
        if over > 0:
            retry_after_s = self.estimated_wait_s(now) * over / queued
            raise Overloaded(
                f"the queue holds {queued} tokens of at most {self._queue_tokens} and has no room for "
                f"{request.tokens} more; try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )

    def _check_deadline(self, request: Request[P], now: float) -> None:
        left = request.deadline - now
        if left <= 0:
            raise DeadlineExceeded("the deadline had passed before the request was queued; allow more time")
        if left == math.inf:
            return
        row_seconds = self._lanes[request.model].costs.row_seconds()
        own = sum(segment.waiting * float(row_seconds[level]) for level, segment in request.segments.items())
        estimate = self.estimated_wait_s(now) + own / self._workers
        if _OPTIMISM * estimate > left:
            raise DeadlineExceeded(
                f"the answer would take about {estimate:.3f} s and the deadline is in {left:.3f} s; "
                "allow more time, send less, or try another server"
            )

    def _start(self, model: str, plan: Plan, now: float) -> Batch[P]:
        pool = self._pools[model]
        pieces = [piece for level, rows in plan.takes for piece in pool.take(level, rows)]
        for request in (piece.request for piece in pieces):
            if math.isnan(request.started):
                request.started = now
            if not request.waiting:
                self._waiting.pop(request.sequence, None)
        expected_s = self._lanes[model].costs.seconds(plan.bucket.rows, plan.bucket.length)
        batch = Batch(self._batches, model, plan.bucket, pieces, now, expected_s)
        self._batches += 1
        self._running[batch.number] = batch
        return batch

    def _end(self, batch: Batch[P]) -> list[Request[P]]:
        """Books a batch as no longer running; its requests, each once."""
        del self._running[batch.number]
        for piece in batch.pieces:
            piece.request.running -= len(piece.rows)
            piece.request.padded_tokens += len(piece.rows) * batch.bucket.length - piece.tokens
        return list({piece.request.sequence: piece.request for piece in batch.pieces}.values())

    def _expire(self, now: float) -> list[Request[P]]:
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, sequence = heapq.heappop(self._deadlines)
            request = self._open.get(sequence)
            if request is not None and self.cancel(request):
                expired.append(request)
        return expired

    def _sweep_deadlines(self) -> None:
        """Closed requests leave the heap only when their time comes; do not let them pile up until then."""
        if len(self._deadlines) > 2 * len(self._open) + _SPARE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._open]
            heapq.heapify(self._deadlines)
