"""Requests that were accepted and are not yet answered: their number, and the drain that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import NotReady


class OpenRequests:
    """The requests of one engine. Belongs to one event loop."""

    def __init__(self) -> None:
        self.count = 0
        """Requests now open."""
        self.draining = False
        """Whether new ones are refused."""
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def accept(self) -> Iterator[None]:
        """A request, from its acceptance to its answer.

        Raises:
            NotReady: draining.
        """
        if self.draining:
            raise NotReady("the engine is draining and takes no new work; try another server")
        self.count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.count -= 1
            if not self.count:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Returns when none is open."""
        await self._idle.wait()
