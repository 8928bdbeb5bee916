"""Requests that were accepted and are not yet answered: their number, and the drain that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import NotReady

_INSIDE: ContextVar[OpenRequests | None] = ContextVar("pairwire_inside_a_request", default=None)
"""Whose request the running task works on; tasks that it starts inherit it."""


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

        Calls that a request makes in turn are parts of it: they are not counted, and a drain that has begun meanwhile
        does not refuse them.

        Raises:
            NotReady: draining.
        """
        if _INSIDE.get() is self:
            yield
            return
        if self.draining:
            raise NotReady("the engine is draining and takes no new work; try another server")
        inside = _INSIDE.set(self)
        self.count += 1
        self._idle.clear()
        try:
            yield
        finally:
            _INSIDE.reset(inside)
            self.count -= 1
            if not self.count:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Returns when none is open."""
        await self._idle.wait()
