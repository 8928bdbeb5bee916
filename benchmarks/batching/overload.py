"""Overload in virtual time: more work with deadlines than the workers can do, and how much of it is answered in time.

Batches take what the recording says, times noise that no table knows, times ``slow`` from half of the time on: then
neighbours take the CPUs. Goodput is the work of the answers that came in time, as a share of what the workers could do
in that time if they did nothing else; the same noise and the same slowness apply to both.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pairwire.server.engine.batching.planner import OptimalCover
from pairwire.server.engine.batching.pool import queue_rows
from pairwire.server.engine.batching.priority import Priority
from pairwire.server.engine.batching.scheduler import Batch, BatchingRules, Scheduler
from pairwire.server.errors import DeadlineExceeded, Overloaded
from pairwire.server.runtime.base import Int32Array

from .tables import Recording

LOADS = (1.2, 2.0, 5.0, 10.0)
"""Times the capacity."""
_WARM = 0.1
_QUEUE_S = 2.0
_CODEL_TARGET_S, _CODEL_INTERVAL_S = 0.005, 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """A call with a deadline."""

    number: int
    arrival: float
    lengths: tuple[int, ...]
    deadline: float
    seconds: float
    """Of one worker, its rows in their best batches."""
    caller: str = ""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Job:
    """One batch."""

    rows: int
    length: int
    taken: Sequence[tuple[Request, int]]
    """Rows of each request."""
    batch: Batch[Request] | None = field(default=None, compare=False)


class Policy(Protocol):
    """Decides who is let in and what runs next."""

    def offer(self, request: Request, now: float) -> bool:
        """Takes a request in, or refuses it at once."""
        ...

    def next_job(self, now: float) -> Job | None:
        """Work for an idle worker."""
        ...

    def complete(self, job: Job, now: float) -> None:
        """Told when it has ended."""
        ...


class Pairwire:
    """The server's own scheduler."""

    def __init__(self, recording: Recording, *, queue_s: float = _QUEUE_S) -> None:
        self._ladder = recording.ladder()
        lanes = {"model": BatchingRules(self._ladder, recording.engine_costs())}
        self._scheduler: Scheduler[Request] = Scheduler(
            lanes, OptimalCover(), workers=recording.workers, queue_tokens=1 << 62, queue_s=queue_s
        )

    def offer(self, request: Request, now: float) -> bool:
        """By its estimate."""
        queued = queue_rows(
            self._ladder,
            "model",
            np.array(request.lengths, np.int32),
            request,
            deadline=request.deadline,
            priority=request.priority,
            caller=request.caller,
        )
        try:
            self._scheduler.admit(queued, now)
        except (Overloaded, DeadlineExceeded):
            return False
        return True

    def next_job(self, now: float) -> Job | None:
        """What the scheduler gives."""
        batch = self._scheduler.next_batch(now).batch
        if batch is None:
            return None
        taken = [(piece.queued.payload, len(piece.rows)) for piece in batch.pieces]
        return Job(batch.bucket.rows, batch.bucket.length, taken, batch)

    def complete(self, job: Job, now: float) -> None:
        """Lets it learn."""
        assert job.batch is not None
        self._scheduler.complete(job.batch, now)


class BoundedFifo:
    """The oldest rows first, up to the token budget; refuses when so much work waits; drops what has expired.

    What servers do that have a queue with a limit and a timeout of requests in it.
    """

    def __init__(self, recording: Recording, *, queue_s: float = _QUEUE_S) -> None:
        self._budget = recording.batch_tokens
        self._room_s = queue_s * recording.workers
        self._queue: deque[tuple[Request, int]] = deque()  # (request, rows that have begun)
        self._waiting_s = 0.0

    def offer(self, request: Request, now: float) -> bool:
        """If there is room."""
        if self._waiting_s + request.seconds > self._room_s:
            return False
        self._waiting_s += request.seconds
        self._queue.append((request, 0))
        return True

    def next_job(self, now: float) -> Job | None:
        """The next rows in order."""
        taken: list[tuple[Request, int]] = []
        rows = longest = 0
        while (front := self._next(now)) is not None:
            request, begun = front
            count, longer = 0, longest
            for length in request.lengths[begun:]:
                if max(longer, length) * (rows + count + 1) > self._budget and rows + count:
                    break
                longer, count = max(longer, length), count + 1
            if not count:
                self._return(request, begun)
                break
            taken.append((request, count))
            rows, longest = rows + count, longer
            self._waiting_s -= request.seconds * count / len(request.lengths)
            if begun + count < len(request.lengths):
                self._return(request, begun + count)
                break
        return Job(rows, longest, taken) if taken else None

    def complete(self, job: Job, now: float) -> None:
        """Nothing to learn."""

    def _next(self, now: float) -> tuple[Request, int] | None:
        while self._queue:
            request, begun = self._queue.popleft()
            if request.deadline > now:
                return request, begun
            self._drop(request, begun)
        return None

    def _return(self, request: Request, begun: int) -> None:
        self._queue.appendleft((request, begun))

    def _drop(self, request: Request, begun: int) -> None:
        self._waiting_s -= request.seconds * (1 - begun / len(request.lengths))


class CodelLifo(BoundedFifo):
    """Adaptive LIFO with CoDel: once the queue has not been empty for 100 ms, the newest first; 5 ms are enough.

    What has waited for longer than that, and has not begun, is dropped then.

    Source: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015: the queue of Facebook's servers (folly's and wangle's
    Codel), with its constants.
    """

    def __init__(self, recording: Recording, *, queue_s: float = _QUEUE_S) -> None:
        super().__init__(recording, queue_s=queue_s)
        self._empty_at = 0.0

    def next_job(self, now: float) -> Job | None:
        """The newest first under load."""
        job = super().next_job(now)
        if not self._queue:
            self._empty_at = now
        return job

    def _next(self, now: float) -> tuple[Request, int] | None:
        loaded = now - self._empty_at > _CODEL_INTERVAL_S
        while self._queue:
            request, begun = self._queue.pop() if loaded else self._queue.popleft()
            patience = _CODEL_TARGET_S if loaded and not begun else math.inf
            if request.deadline > now and now - request.arrival <= max(patience, _CODEL_TARGET_S):
                return request, begun
            if begun and request.deadline > now:
                return request, begun
            self._drop(request, begun)
        return None

    def _return(self, request: Request, begun: int) -> None:
        self._queue.append((request, begun))


POLICIES: dict[str, Callable[[Recording], Policy]] = {
    "pairwire": Pairwire,
    "fifo": BoundedFifo,
    "codel-lifo": CodelLifo,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """What no table knows."""

    noise: float = 0.0
    """Standard deviation of the logarithm of what a batch takes."""
    slow: float = 1.0
    """How many times as long batches take from half of the time on."""
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of the requests."""

    in_time: list[Request] = field(default_factory=list)
    late: list[Request] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)
    dropped: list[Request] = field(default_factory=list)
    latency: dict[int, float] = field(default_factory=dict)
    """Seconds by number, of those in time."""


def overload(
    policy: Policy, requests: Sequence[Request], recording: Recording, weather: Weather, *, end: float
) -> Outcome:
    """Runs all requests to their end; ``end`` is when the last may come."""
    truth, draw = recording.truth(), np.random.default_rng(weather.seed)
    outcome, left = Outcome(), {}
    events: list[tuple[float, int, int, Request | Job]] = [
        (request.arrival, 1, request.number, request) for request in requests
    ]
    heapq.heapify(events)
    idle, jobs = recording.workers, 0
    while events:
        now, _, _, subject = heapq.heappop(events)
        if isinstance(subject, Request):
            if policy.offer(subject, now):
                left[subject.number] = (subject, len(subject.lengths))
            else:
                outcome.refused.append(subject)
        else:
            idle += 1
            policy.complete(subject, now)
            for request, rows in subject.taken:
                if request.number in left:
                    rest = left[request.number][1] - rows
                    left[request.number] = (request, rest)
                    if not rest:
                        del left[request.number]
                        (outcome.in_time if now <= request.deadline else outcome.late).append(request)
                        outcome.latency[request.number] = now - request.arrival
        while idle and (job := policy.next_job(now)) is not None:
            idle, jobs = idle - 1, jobs + 1
            took = truth(job.rows, job.length) * math.exp(draw.normal(0.0, weather.noise))
            took *= weather.slow if now > end / 2 else 1.0
            heapq.heappush(events, (now + took, 0, jobs, job))
    outcome.dropped.extend(request for request, _ in left.values())
    return outcome


def capacity(recording: Recording, requests: Sequence[Request], weather: Weather) -> float:
    """Seconds of work (as in `Request.seconds`) that the workers do in a second while they always have plenty."""
    patient = [
        Request(at, 0.0, request.lengths, math.inf, request.seconds) for at, request in enumerate(requests[:400])
    ]
    steady = Weather(noise=weather.noise, seed=weather.seed)
    policy = Pairwire(recording, queue_s=math.inf)
    outcome = overload(policy, patient, recording, steady, end=math.inf)
    return sum(request.seconds for request in patient) / max(outcome.latency.values())


def goodput(outcome: Outcome, rate: float, weather: Weather, end: float) -> float:
    """Share of the capacity ``rate`` that was answered in time, of what came after the first tenth of the time."""
    begin = _WARM * end
    done = sum(request.seconds for request in outcome.in_time if begin <= request.arrival < end)
    able = (end / 2 - begin) + (end / 2) / weather.slow
    return done / (rate * able)


def traffic(
    recording: Recording,
    series: Sequence[Int32Array],
    *,
    sizes: Sequence[int],
    deadlines_s: Sequence[float],
    per_s: float,
    end: float,
    seed: int,
    callers: Sequence[str] = ("",),
) -> list[Request]:
    """Poisson arrivals of ``per_s`` seconds of work a second, each request a stretch of one of the series.

    A request whose deadline is shorter than three times its own time on idle workers has that long instead.
    """
    draw = np.random.default_rng(seed)
    ladder, costs = recording.ladder(), recording.engine_costs()
    row_s = costs.row_seconds()
    shapes: list[tuple[tuple[int, ...], float]] = []
    for _ in range(500):
        lengths = series[int(draw.integers(len(series)))]
        start, size = int(draw.integers(len(lengths))), int(draw.choice(sizes))
        chosen = np.take(lengths, np.arange(start, start + size), mode="wrap").astype(np.int32)
        shapes.append((tuple(chosen.tolist()), float(row_s[ladder.levels(chosen)].sum())))
    gap = float(np.mean([seconds for _, seconds in shapes])) / per_s
    requests: list[Request] = []
    now = float(draw.exponential(gap))
    while now < end:
        lengths_of, seconds = shapes[int(draw.integers(len(shapes)))]
        timeout = max(float(draw.choice(deadlines_s)), 3 * seconds / recording.workers)
        caller = callers[int(draw.integers(len(callers)))]
        requests.append(Request(len(requests), now, lengths_of, now + timeout, seconds, caller))
        now += float(draw.exponential(gap))
    return requests


def latencies(outcome: Outcome, requests: Iterable[Request], quantile: float) -> float:
    """Of those of some requests that were answered in time; NaN where none was."""
    found = [outcome.latency[each.number] for each in requests if each.number in outcome.latency]
    return float(np.quantile(found, quantile)) if found else math.nan
