"""What each model has done since the start of this process: counts and times, as KServe v2 reports them.

An observer of the engine, so that the calls of all protocols are in it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..clock import wall_ms
from ..engine.observer import BatchEvent, Outcome, RequestEvent


@dataclass(slots=True)
class Duration:
    """How often, and how long together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.seconds += seconds

    @property
    def ns(self) -> int:
        """Nanoseconds."""
        return int(self.seconds * 1e9)


@dataclass(slots=True)
class ModelCounts:
    """One model."""

    last_ms: int = 0
    """When its last batch ended, in milliseconds since 1970; 0 where there was none."""
    rows: int = 0
    """Pairs or texts of answered requests."""
    batches: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    tokenize: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    by_rows: dict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))
    """Batches by the number of their rows."""


class Statistics:
    """The counts of all models. Thread-safe."""

    def __init__(self, now_ms: Callable[[], int] = wall_ms) -> None:
        self._now_ms = now_ms
        self._models: dict[str, ModelCounts] = defaultdict(ModelCounts)
        self._lock = threading.Lock()

    def read(self, model: str, look: Callable[[ModelCounts], None]) -> None:
        """Lets ``look`` see the counts of a model while nothing is added to them."""
        with self._lock:
            look(self._models[model])

    def forget(self, model: str) -> None:
        """Drops the counts of a model that has gone."""
        with self._lock:
            self._models.pop(model, None)

    def batch_finished(self, event: BatchEvent) -> None:
        """Counts a batch."""
        with self._lock:
            counts = self._models[event.model]
            counts.batches += 1
            counts.by_rows[event.rows].add(event.seconds)
            counts.last_ms = self._now_ms()

    def request_finished(self, event: RequestEvent) -> None:
        """Counts a request. A call that its caller gave up is neither a success nor a failure."""
        total_s = event.queue_s + event.tokenize_s + event.compute_s
        with self._lock:
            counts = self._models[event.model]
            if event.outcome is Outcome.OK:
                counts.rows += event.rows
                counts.success.add(total_s)
                counts.queue.add(event.queue_s)
                counts.tokenize.add(event.tokenize_s)
                counts.compute.add(event.compute_s)
            elif event.outcome is not Outcome.CANCELLED:
                counts.fail.add(total_s)
