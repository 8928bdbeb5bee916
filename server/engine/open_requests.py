"""Requests that were accepted and are not yet answered: their number, and the drain that waits for them."""

from __future__ import annotations

import asyncio
from collections import Counter
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
        self._users: Counter[str] = Counter()
        self._unused: dict[str, asyncio.Event] = {}

    @contextmanager
    def accept(self, *models: str) -> Iterator[None]:
        """A request, from its acceptance to its answer. It uses models, by their keys, which stay as long.

        Raises:
            NotReady: draining.
        """
        if self.draining:
            raise NotReady("the engine is draining and takes no new work; try another server")
        self.count += 1
        self._idle.clear()
        self._users.update(models)
        try:
            yield
        finally:
            self.count -= 1
            for model in models:
                self._leave(model)
            if not self.count:
                self._idle.set()

    def _leave(self, model: str) -> None:
        self._users[model] -= 1
        if not self._users[model]:
            del self._users[model]
            if model in self._unused:
                self._unused.pop(model).set()

    async def wait_unused(self, model: str) -> None:
        """Returns when no open request uses a model, by its key, that new ones do not find any more."""
        if self._users[model]:
            await self._unused.setdefault(model, asyncio.Event()).wait()

    async def wait_idle(self) -> None:
        """Returns when none is open."""
        await self._idle.wait()
