"""Notices files that change: on their own, or because somebody says so (SIGHUP)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..reasons import reason_of

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often files are looked at."""

_Seen = tuple[tuple[int, int, int] | None, ...]


class Reloadable(Protocol):
    """What is made of files."""

    @property
    def files(self) -> Sequence[Path]:
        """Those files."""
        ...

    def reload(self) -> None:
        """Reads them again; keeps what it has where they cannot be used, and logs why. Called in a thread."""
        ...


class Reloader:
    """Looks at the files of several things, and has each read its own again when one has changed.

    Links are followed, so that Kubernetes' way to change a mounted secret is noticed.
    """

    def __init__(self, *each: Reloadable) -> None:
        self._each = [(one, _seen(one.files)) for one in each if one.files]
        self._lock = asyncio.Lock()

    async def run(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Looks again and again, until it is cancelled."""
        while self._each:
            await asyncio.sleep(LOOK_S)
            await self._look(whether_changed_or_not=False)
            on_look()

    async def reload(self) -> None:
        """Has everything read again now, changed or not."""
        await self._look(whether_changed_or_not=True)

    async def _look(self, *, whether_changed_or_not: bool) -> None:
        async with self._lock:
            for at, (one, before) in enumerate(self._each):
                try:
                    self._each[at] = (one, await asyncio.to_thread(_again, one, before, whether_changed_or_not))
                except Exception as error:  # what runs without end must not end of one surprise
                    logger.exception("files cannot be read again: %s", reason_of(error))


def _again(one: Reloadable, before: _Seen, whether_changed_or_not: bool) -> _Seen:
    # Looked at before they are read: what changes meanwhile is noticed the next time.
    now = _seen(one.files)
    if whether_changed_or_not or now != before:
        one.reload()
    return now


def _seen(files: Sequence[Path]) -> _Seen:
    return tuple(_state(path) for path in files)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)
