"""Says when connections are about to take all the files that they may."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_FILES = Path("/proc/self/fd")
_FULL, _ROOM = 0.95, 0.8


class OpenFiles:
    """What was opened since it was made, which is connections nearly all of it, against how many there may be."""

    def __init__(self, connection_limit: int) -> None:
        self._limit = connection_limit
        self._before = _count()
        self._told = False

    def look(self) -> None:
        """Logs when the limit is near, once until there is room again."""
        share = (_count() - self._before) / self._limit
        if share >= _FULL and not self._told:
            self._told = True
            logger.warning(
                "nearly all of the %d connections that there may be are open; more are closed at once "
                "(--max-connections, or `ulimit -n`)",
                self._limit,
            )
        elif share < _ROOM:
            self._told = False


def _count() -> int:
    """Open files of this process; 0 where the system does not tell."""
    return len(os.listdir(_FILES)) if _FILES.is_dir() else 0  # noqa: PTH208  # counts thousands, makes no paths
