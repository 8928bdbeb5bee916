"""What the engine tells the outside: events for metrics and logs. An observer that crashes is removed, not obeyed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from .batching.buckets import Bucket
from .kinds import ModelKind

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Outcome(Enum):
    """How a request ended."""

    OK = "ok"
    INVALID = "invalid"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    NOT_READY = "not_ready"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchEvent:
    """A batch that ran to its end."""

    model: str
    bucket: Bucket
    rows: int
    """Rows with text; at most ``bucket.rows``."""
    useful_tokens: int
    computed_tokens: int
    """Padding included."""
    started_s: float
    """On the engine's clock."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestEvent:
    """A request that has been answered, one way or the other."""

    model: str
    kind: ModelKind
    rows: int
    tokens: int
    """0 where it ended before it was tokenised."""
    outcome: Outcome
    queue_s: float
    tokenize_s: float
    compute_s: float
    unscored: int = 0
    """Rows of a partial result that have none."""
    caller: str = ""
    """Whom it was for."""
    refused: bool = False
    """Told at once, because of the load, that it would not be in time."""


class Observer(Protocol):
    """Listens. Called from worker threads (batches, health) and the event loop (requests): be quick and thread-safe."""

    def batch_finished(self, event: BatchEvent) -> None:
        """A batch ran."""
        ...

    def request_finished(self, event: RequestEvent) -> None:
        """A request that named a known model was answered."""
        ...

    def model_health(self, model: str, healthy: bool) -> None:
        """A model's health flipped."""
        ...


class SafeObserver:
    """Hands events to an observer until it raises; then logs that once and hands it nothing more."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    def batch_finished(self, event: BatchEvent) -> None:
        """A batch ran."""
        if self._observer is not None:
            self._call(self._observer.batch_finished, event)

    def request_finished(self, event: RequestEvent) -> None:
        """A request that named a known model was answered."""
        if self._observer is not None:
            self._call(self._observer.request_finished, event)

    def model_health(self, model: str, healthy: bool) -> None:
        """A model's health flipped."""
        observer = self._observer
        if observer is not None:
            self._call(lambda flag: observer.model_health(model, flag), healthy)

    def _call(self, listener: Callable[[_T], None], event: _T) -> None:
        try:
            listener(event)
        except BaseException:  # whatever it is, neither a worker nor a request may die of it
            logger.exception("an observer failed and gets no more events: %r", self._observer)
            self._observer = None
