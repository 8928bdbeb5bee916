"""The phases of a serving process and the only ways from one to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import Enum

logger = logging.getLogger(__name__)


class Phase(Enum):
    """Where a server is in its life. ``LOADING`` ends when every model is warm; only ``READY`` is healthy."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.LOADING: frozenset({Phase.READY, Phase.STOPPED}),
    Phase.READY: frozenset({Phase.DRAINING}),
    Phase.DRAINING: frozenset({Phase.STOPPED}),
    Phase.STOPPED: frozenset(),
}
"""Phase -> the phases that may follow."""


class Lifecycle:
    """The phase of one server; tells its listeners of each change, in the order in which they were added."""

    def __init__(self) -> None:
        self._phase = Phase.LOADING
        self._listeners: list[Callable[[Phase], None]] = []

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase

    def listen(self, listener: Callable[[Phase], None]) -> None:
        """Calls ``listener`` with each new phase, right after the change."""
        self._listeners.append(listener)

    def enter(self, phase: Phase) -> None:
        """Goes to a phase.

        Raises:
            RuntimeError: it may not follow the present one.
        """
        if phase not in NEXT[self._phase]:
            raise RuntimeError(f"a server that is {self._phase.value} cannot become {phase.value}")
        if self._phase is not Phase.LOADING or phase is Phase.READY:  # a start that failed is reported by its error
            logger.info("server is %s", phase.value)
        self._phase = phase
        for listener in self._listeners:
            listener(phase)
