"""Batching rules: the rivals', each with its source, and the server's own scheduler, behind one protocol.

A rule decides only which waiting rows run together and in which order. All are given the same workers and the same
costs, so what differs is the rule and not the server that it comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pairwire.server.engine.batching.planner import OptimalCover, Planner
from pairwire.server.engine.batching.pool import queue_rows
from pairwire.server.engine.batching.scheduler import Batch, BatchingRules, Scheduler

from .tables import Recording


@dataclass(frozen=True, slots=True)
class Call:
    """A request of one or more rows."""

    number: int
    first_row: int
    """Its rows are numbered on from here, over all calls."""
    lengths: tuple[int, ...]
    """Tokens of each row."""

    def rows(self) -> Iterable[tuple[int, int]]:
        """(number, tokens) of each row."""
        return enumerate(self.lengths, self.first_row)


@dataclass(frozen=True, slots=True)
class Work:
    """One batch: these rows, all padded to this length."""

    rows: Sequence[int]
    length: int
    batch: Batch[Call] | None = field(default=None, compare=False)
    """The scheduler's own, where it made it."""


class Rule(Protocol):
    """Decides what an idle worker does. Time is an argument."""

    def admit(self, call: Call, now: float) -> None:
        """Takes a call in."""
        ...

    def next_work(self, now: float) -> Work | float:
        """A batch for one idle worker; or when to ask again if nothing happens until then, +inf for never."""
        ...

    def complete(self, work: Work, now: float) -> None:
        """Told when a batch has ended."""
        ...


NEVER = float("inf")


class FifoFixed:
    """The oldest 32 rows, padded to the longest of them.

    What a server does that hands its queue to a library call with a fixed batch size: 32 is the default of
    ``sentence_transformers.CrossEncoder.predict``.
    """

    def __init__(self, rows: int = 32) -> None:
        self._rows = rows
        self._queue: deque[tuple[int, int]] = deque()

    def admit(self, call: Call, now: float) -> None:
        """At the end of the queue."""
        self._queue.extend(call.rows())

    def next_work(self, now: float) -> Work | float:
        """The front of the queue."""
        taken = [self._queue.popleft() for _ in range(min(self._rows, len(self._queue)))]
        return _work(taken) if taken else NEVER

    def complete(self, work: Work, now: float) -> None:
        """Nothing to learn."""


class SortedBudget:
    """All that waits is sorted, longest first, and cut into batches of at most N tokens, padding included.

    The rule of offline jobs (fairseq's and OpenNMT's ``--max-tokens``), as a server would do it: what arrives while the
    batches of one sort are worked off waits for the next sort, so that no length starves.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._arrived: list[tuple[int, int]] = []
        self._batches: deque[list[tuple[int, int]]] = deque()

    def admit(self, call: Call, now: float) -> None:
        """For the next sort."""
        self._arrived.extend(call.rows())

    def next_work(self, now: float) -> Work | float:
        """The next batch of this sort, or the first of a new one."""
        if not self._batches:
            self._sort()
        return _work(self._batches.popleft()) if self._batches else NEVER

    def complete(self, work: Work, now: float) -> None:
        """Nothing to learn."""

    def _sort(self) -> None:
        batch: list[tuple[int, int]] = []
        for row in sorted(self._arrived, key=lambda row: (-row[1], row[0])):
            if batch and batch[0][1] * (len(batch) + 1) > self._tokens:
                self._batches.append(batch)
                batch = []
            batch.append(row)
        if batch:
            self._batches.append(batch)
        self._arrived = []


class TextEmbeddingsInference:
    """In order of arrival, until one more row would exceed the tokens (longest x rows) or the rows of a batch.

    Source: huggingface/text-embeddings-inference, ``core/src/queue.rs`` (``NextBatch``, the padded path) and
    ``core/src/infer.rs``: every input is an entry of its own, nothing is sorted, nothing beyond the first entry that
    does not fit is looked at, and one batch is made ahead of the one that runs. ``max_batch_tokens`` is 16,384 unless
    set; ``max_batch_requests`` is without limit on a GPU and 8 on the CPU with ONNX Runtime, where it cannot be set.
    Kinder than the source in one thing: the rows of a call reach the queue together.
    """

    def __init__(self, max_batch_tokens: int = 16_384, max_batch_requests: int | None = None) -> None:
        self._tokens, self._requests = max_batch_tokens, max_batch_requests
        self._queue: deque[tuple[int, int]] = deque()
        self._ahead: list[tuple[int, int]] = []

    def admit(self, call: Call, now: float) -> None:
        """At the end of the queue; makes the batch ahead if there is none."""
        self._queue.extend(call.rows())
        self._make_ahead()

    def next_work(self, now: float) -> Work | float:
        """The batch made ahead, in whose place the next one is made at once."""
        if not self._ahead:
            return NEVER
        work, self._ahead = _work(self._ahead), []
        self._make_ahead()
        return work

    def complete(self, work: Work, now: float) -> None:
        """Nothing to learn."""

    def _make_ahead(self) -> None:
        if self._ahead:
            return
        longest = 0
        while self._queue and len(self._ahead) != self._requests:
            longest = max(longest, self._queue[0][1])
            # The source never admits a row that is longer than the budget; here it runs alone.
            if self._ahead and longest * (len(self._ahead) + 1) > self._tokens:
                break
            self._ahead.append(self._queue.popleft())


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What a client of Triton sends: rows that it has padded to one length."""

    rows: range
    length: int
    arrived: float


class Triton:
    """In order of arrival, as long as the next request has the same shape; the first that differs ends the batch.

    Source: triton-inference-server/core, ``src/dynamic_batch_scheduler.cc`` (``GetDynamicBatch``). The client pads the
    rows of a request to one length and cuts what exceeds ``max_batch_size`` into several requests. Without preferred
    sizes ``max_batch_size`` is the one preferred size, and without a queue delay (the default) an idle instance takes
    what there is. ``ragged`` models are not meant: no encoder exported for ONNX Runtime takes a ragged batch.
    """

    def __init__(self, max_batch_size: int = 32, preferred: Sequence[int] = (), max_queue_delay_s: float = 0.0) -> None:
        self._most = max_batch_size
        self._preferred = frozenset(preferred or (max_batch_size,))
        self._delay_s = max_queue_delay_s
        self._queue: deque[_Tensor] = deque()

    def admit(self, call: Call, now: float) -> None:
        """As tensors of at most ``max_batch_size`` rows."""
        for at in range(0, len(call.lengths), self._most):
            lengths = call.lengths[at : at + self._most]
            first = call.first_row + at
            self._queue.append(_Tensor(range(first, first + len(lengths)), max(lengths), now))

    def next_work(self, now: float) -> Work | float:
        """The front of the queue, or the time at which its delay is over."""
        if not self._queue:
            return NEVER
        oldest = self._queue[0]
        count, rows, marked, complete = 0, 0, 0, False
        for tensor in self._queue:
            larger = rows + len(tensor.rows)
            if count:
                if larger > max(self._preferred) and not marked:
                    marked = count
                if larger > self._most or tensor.length != oldest.length:
                    complete = True
                    break
            count, rows = count + 1, larger
            if rows in self._preferred:
                marked = count
        late = 0 < self._delay_s <= now - oldest.arrived
        if marked and not late:
            return self._take(marked)
        if complete or late or not self._delay_s or rows >= max(self._preferred):
            return self._take(count)
        return oldest.arrived + self._delay_s

    def complete(self, work: Work, now: float) -> None:
        """Nothing to learn."""

    def _take(self, count: int) -> Work:
        tensors = [self._queue.popleft() for _ in range(count)]
        return Work([row for tensor in tensors for row in tensor.rows], tensors[0].length)


class Pairwire:
    """The server's own scheduler and planner, with the cost table that the engine would have."""

    def __init__(self, recording: Recording, workers: int, planner: Planner | None = None) -> None:
        self._ladder = recording.ladder()
        lanes = {_MODEL: BatchingRules(self._ladder, recording.engine_costs())}
        self._scheduler: Scheduler[Call] = Scheduler(
            lanes, planner or OptimalCover(), workers=workers, queue_tokens=_UNLIMITED
        )

    def admit(self, call: Call, now: float) -> None:
        """A request without a deadline."""
        lengths = np.array(call.lengths, dtype=np.int32)
        self._scheduler.admit(queue_rows(self._ladder, _MODEL, lengths, call), now)

    def next_work(self, now: float) -> Work | float:
        """What the scheduler gives an idle worker."""
        batch = self._scheduler.next_batch(now).batch
        if batch is None:
            return NEVER
        rows = [piece.queued.payload.first_row + row for piece in batch.pieces for row in piece.rows.tolist()]
        return Work(rows, batch.bucket.length, batch)

    def complete(self, work: Work, now: float) -> None:
        """Lets the scheduler learn what the batch took."""
        assert work.batch is not None
        self._scheduler.complete(work.batch, now)


_MODEL = "model"
_UNLIMITED = 2**62


def _work(rows: Iterable[tuple[int, int]]) -> Work:
    numbers, lengths = zip(*rows, strict=True)
    return Work(list(numbers), max(lengths))


RuleFactory = Callable[[Recording, int], Rule]

RULES: dict[str, RuleFactory] = {
    "fifo-32": lambda recording, workers: FifoFixed(),
    "sorted-budget": lambda recording, workers: SortedBudget(recording.batch_tokens),
    "tei": lambda recording, workers: TextEmbeddingsInference(
        max_batch_requests=8 if recording.device == "cpu" else None
    ),
    "tei-tuned": lambda recording, workers: TextEmbeddingsInference(max_batch_tokens=recording.batch_tokens),
    "triton": lambda recording, workers: Triton(),
    "pairwire": Pairwire,
    "pairwire-10ms": lambda recording, workers: Pairwire(recording, workers, OptimalCover(0.010)),
}
"""By name: (recording, workers) -> a fresh rule. ``tei-tuned`` has the token budget that the engine has.
``pairwire-10ms`` is ours with --latency-target-ms 10."""
