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


_PATIENCE_S: Mapping[Priority, float] = {Priority.HIGH: 0.0, Priority.NORMAL: 3.0, Priority.LOW: 35.0}
"""More than a request of that priority may have to wait for others when it is let in (--queue-s, --low-queue-s): so
what is more urgent goes first under overload too, and only what has been overtaken for so long is overtaken no more."""
