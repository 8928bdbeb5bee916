"""A batch as the scheduler makes it, what it decides, and what it tells of its work: values without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from .buckets import Bucket
from .pool import BatchRows, P, QueuedRows


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
    """By the cost table and what batches took lately."""
    rows_s: float
    """By the cost table alone: its rows in the best batches of their lengths."""
    table_s: float
    """By the cost table alone: this batch."""
    under_load: bool
    """More waited when it began."""

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
    """Closed just now because their deadline has passed or cannot be met any more; to be reported."""


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
    capacity_tokens_per_s: float
    models: Mapping[str, ModelWork]


def padding_of(batch: Batch[P]) -> list[int]:
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
