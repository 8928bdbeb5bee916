"""How urgent a request is, and how long it may be kept waiting for more urgent ones."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Priority(Enum):
    """What a request may overtake; see `scheduler` for the exact rule."""

    LOW = "low"
    """Work that nobody watches: indexing, evaluation, back-filling."""
    NORMAL = "normal"
    HIGH = "high"
    """Somebody waits for the answer, and for nothing else."""

    @property
    def patience_s(self) -> float:
        """Seconds after its arrival until nothing that arrives later can overtake a request."""
        return _PATIENCE_S[self]


_PATIENCE_S: Mapping[Priority, float] = {Priority.HIGH: 0.0, Priority.NORMAL: 1.0, Priority.LOW: 10.0}
"""A second is what somebody waits without losing the thread (Nielsen, Usability Engineering, 1993, chapter 5): a queue
that keeps normal requests longer is overloaded, and then the oldest is the most urgent. Ten seconds at low priority
leave two thirds of the client's default timeout (30 s) for the queue that stands before them even then."""
