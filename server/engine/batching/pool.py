"""The waiting rows of one model, sorted by padded length and, within a length, by when they are due.

Rows that are queued together (`QueuedRows`) are split by padded length (`LevelRows`). Each length has an agenda of
these, the first due first. Rows are taken from its front, and any caller's rows can be removed from its middle. So
adding, taking and removing cost a few operations for each length, times the logarithm of how many callers wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ...runtime.base import Int32Array
from .agenda import Agenda
from .buckets import Ladder
from .cost import Float64Array
from .planner import PoolView
from .priority import Priority

P = TypeVar("P")
"""What the caller attaches to rows; never looked at here."""


@dataclass(eq=False, slots=True)
class LevelRows:
    """Those of some queued rows that are padded to one length, in input order."""

    rows: Int32Array
    """Indices into the queued rows."""
    taken: int = 0
    """How many of them are no longer waiting."""

    @property
    def waiting(self) -> int:
        """Rows left."""
        return len(self.rows) - self.taken


@dataclass(eq=False, slots=True)
class QueuedRows(Generic[P]):
    """Rows of one caller that wait together. Built by ``queue_rows``; from then on the scheduler alone changes them."""

    model: str
    lengths: Int32Array
    """[rows] tokens of each, special tokens included."""
    payload: P
    deadline: float
    """On the scheduler's clock; +inf for none."""
    by_level: dict[int, LevelRows]
    """By level."""
    tokens: int
    waiting: int
    """Rows not yet in a batch."""
    priority: Priority = Priority.NORMAL
    field: str = "rows"
    """What the caller calls its rows, for error messages, e.g. ``pairs``."""
    caller: str = ""
    """Whom it is served for; callers share the machine fairly."""
    seconds: float = 0.0
    """What its waiting rows would take in their best batches, by the cost table."""
    sequence: int = -1
    """Order of admission; -1 before."""
    open: bool = False
    """Admitted, and neither finished, failed nor cancelled."""
    running: int = 0
    """Rows in batches that have not ended."""
    dropped: int = 0
    """Rows that still waited when it was closed, and are not run."""
    arrival: float = math.nan
    due: float = math.nan
    """What is due earlier goes first; of equals the one with the lower ``sequence``."""
    patient_until: float = math.inf
    """From then on no priority goes before it."""
    started: float = math.nan
    """When the first batch with one of its rows began."""
    finished: float = math.nan
    """When the last one ended."""
    padded_tokens: int = 0
    """Padding in its own rows so far."""


@dataclass(frozen=True, eq=False, slots=True)
class BatchRows(Generic[P]):
    """Those of some queued rows that are in one batch."""

    queued: QueuedRows[P]
    rows: Int32Array
    """Indices into the queued rows."""
    tokens: int
    """Useful tokens of them."""
    level: int
    """Whose length they are padded to."""


def queue_rows(
    ladder: Ladder,
    model: str,
    lengths: Int32Array,
    payload: P,
    *,
    deadline: float = math.inf,
    priority: Priority = Priority.NORMAL,
    field: str = "rows",
    caller: str = "",
) -> QueuedRows[P]:
    """At least one row, sorted by padded length, ready to be admitted. Needs no lock."""
    if len(lengths) == 1:  # the commonest case of all; numpy's fixed costs would dominate it
        by_level = {int(ladder.levels(lengths)[0]): LevelRows(_FIRST_ROW)}
    else:
        levels = ladder.levels(lengths)
        order = np.argsort(levels, kind="stable").astype(np.int32)
        present, starts = np.unique(levels[order], return_index=True)
        by_level = {
            level: LevelRows(rows) for level, rows in zip(present.tolist(), np.split(order, starts[1:]), strict=True)
        }
    tokens = int(lengths.sum(dtype=np.int64))
    return QueuedRows(
        model,
        lengths,
        payload,
        deadline,
        by_level,
        tokens=tokens,
        waiting=len(lengths),
        priority=priority,
        field=field,
        caller=caller,
    )


_FIRST_ROW: Int32Array = np.zeros(1, dtype=np.int32)


class Pool(Generic[P]):
    """The waiting rows of one model. Pure bookkeeping: no clock, no lock, no policy."""

    def __init__(self, ladder: Ladder) -> None:
        self.rows = 0
        self.tokens = 0
        self._lengths = np.array(ladder.lengths, dtype=np.int32)
        self._unpadded_level = ladder.unpadded_level
        self._counts = np.zeros(len(ladder), dtype=np.int64)
        self._arrivals: Float64Array = np.full(len(ladder), math.inf)
        self._deadlines: Float64Array = np.full(len(ladder), math.inf)
        self._queues: list[Agenda[tuple[QueuedRows[P], LevelRows]]] = [Agenda() for _ in ladder.lengths]

    @property
    def counts(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """[levels] rows waiting at each padded length; the pool's own, read only."""
        return self._counts

    def add(self, queued: QueuedRows[P]) -> None:
        """Puts rows where their ``due`` and ``sequence`` say; no other may have the same sequence."""
        for level, level_rows in queued.by_level.items():
            self._queues[level].add(queued.due, queued.sequence, (queued, level_rows))
            self._counts[level] += level_rows.waiting
            self._note_front(level)
        self.rows += queued.waiting
        self.tokens += queued.tokens

    def remove(self, queued: QueuedRows[P]) -> None:
        """Takes out what still waits of these rows, for good."""
        for level, level_rows in queued.by_level.items():
            self._queues[level].remove(queued.sequence)
            self._counts[level] -= level_rows.waiting
            self.tokens -= int(queued.lengths[level_rows.rows[level_rows.taken :]].sum(dtype=np.int64))
            self._note_front(level)
        self.rows -= queued.waiting
        queued.waiting = 0
        queued.by_level.clear()

    def take(self, level: int, count: int, chosen: QueuedRows[P] | None = None) -> list[BatchRows[P]]:
        """The ``count`` rows of a level that are due first, before them those of ``chosen``; it must have that many."""
        pieces: list[BatchRows[P]] = []
        queue = self._queues[level]
        left = count
        preferred = None if chosen is None else chosen.by_level.get(level)
        while left:
            front = queue.first() if chosen is None or preferred is None else (chosen, preferred)
            preferred = None
            assert front is not None, "fewer rows wait than are to be taken"
            queued, level_rows = front
            rows = level_rows.rows[level_rows.taken : level_rows.taken + left]
            level_rows.taken += len(rows)
            left -= len(rows)
            tokens = int(queued.lengths[rows].sum(dtype=np.int64))
            pieces.append(BatchRows(queued, rows, tokens, level))
            queued.waiting -= len(rows)
            queued.running += len(rows)
            self.tokens -= tokens
            if not level_rows.waiting:
                queue.remove(queued.sequence)
                del queued.by_level[level]
        self._counts[level] -= count
        self.rows -= count
        self._note_front(level)
        return pieces

    def view(self, anchor: int) -> PoolView:
        """What a planner sees."""
        return PoolView(self._lengths, self._counts, self._arrivals, self._deadlines, anchor, self._unpadded_level)

    def _note_front(self, level: int) -> None:
        front = self._queues[level].first()
        self._arrivals[level] = front[0].arrival if front else math.inf
        self._deadlines[level] = front[0].deadline if front else math.inf
