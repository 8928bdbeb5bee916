"""Calls begin in turns: what one caller sends in bulk is not all looked at before the next caller's first word.

The event loop does one thing at a time, and to look at a request, or to refuse it, takes a fraction of a millisecond,
more for a large one. Of sixty that arrive together, the last would wait for all others, whoever it is of. So in one
round of the loop only so much is begun with, a call of each caller at a time.

gRPC hands calls over one by one, in the order of their arrival. Where many wait, those that it still has go first, for a
few rounds: only here is it known whose they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from google.protobuf.message import Message

from .caller import caller
from .interceptors import Context, Handler
from .method import Answer
from .wire import Received, Unread

_ROUND_BYTES = 16_384
"""Of requests that are begun with in one round, but at least one: about what takes a millisecond."""
_LEAST_BYTES = 1024
"""What any request counts for."""
_MOST_ROUNDS = 8
"""In which calls are only taken from gRPC, as long as there are any, before some are begun with."""


class TakeTurns:
    """Lets calls go on, inside of `NameCaller`. Belongs to one event loop."""

    def __init__(self, arrived: Callable[[], int]) -> None:
        """``arrived`` tells how many calls gRPC has handed over so far."""
        self._arrived = arrived
        self._seen = 0
        self._rounds = 0  # in which calls were only taken
        self._begun = 0  # bytes, in this round
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], int]]] = {}  # the caller whose turn is next first
        self._ticking = False

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler, when its turn has come."""

        async def in_turn(request: Received, context: Context) -> Answer:
            size = max(_LEAST_BYTES, _size_of(request))
            if self._waiting or (self._begun and self._begun + size > _ROUND_BYTES):
                await self._wait(size)
            else:
                self._begun += size
                self._tick_soon()
            return await handler(request, context)

        return in_turn

    async def _wait(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.setdefault(caller(), deque()).append((turn, size))
        self._tick_soon()
        await turn

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        """The next round of the loop."""
        self._ticking, self._begun = False, 0
        seen, self._seen = self._seen, self._arrived()
        if self._waiting and seen != self._seen and self._rounds < _MOST_ROUNDS:
            self._rounds += 1
            self._tick_soon()
            return
        self._rounds = 0
        while self._waiting:
            name, queue = next(iter(self._waiting.items()))
            turn, size = queue[0]
            if not turn.done() and self._begun and self._begun + size > _ROUND_BYTES:
                break
            queue.popleft()
            del self._waiting[name]
            if queue:  # behind all others
                self._waiting[name] = queue
            if not turn.done():  # else the caller has gone
                turn.set_result(None)
                self._begun += size
        if self._waiting or self._begun:
            self._tick_soon()


def _size_of(request: Received) -> int:
    if isinstance(request, Message):
        return request.ByteSize()
    return len(request.raw) if isinstance(request, Unread) else 0
