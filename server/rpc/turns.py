"""A caller that goes on sending much although it is refused waits for others to be heard.

gRPC hands calls over one by one, in the order of their arrival, and to take one in and to refuse it is work of the
event loop: while one caller keeps sixty large calls in flight, and sends each again as soon as it is refused, any other
caller's call waits behind sixty. So what such a caller sends is put aside here, where it is known whose it is, and is
looked at when nothing else arrives, or now and then. Where there is only one caller, nothing is put aside.

"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from google.protobuf.message import Message

from ..errors import DeadlineExceeded, Overloaded
from .caller import caller
from .interceptors import Context, Handler
from .method import Answer
from .wire import Received, Unread

_LARGE_BYTES = 4096
"""Smaller requests are never put aside: there is hardly anything to be gained."""
_MOST_BYTES = 16 << 20
"""Of all that is put aside. What has no room there is looked at at once."""
_LATELY_S = 1.0
"""For so long it counts that a caller was refused, and that another one was here."""
_LOOK_S = 0.004
_MOST_LOOKS = 5
"""One call that was put aside goes on after so many looks, however many others arrive: fifty a second."""
_REMEMBERED = 256
"""Callers that were refused."""


class TakeTurns:
    """Lets calls go on, inside of `NameCaller`. Belongs to one event loop."""

    def __init__(self, arrived: Callable[[], int]) -> None:
        """``arrived`` tells how many calls have been handed over so far."""
        self._arrived = arrived
        self._refused: dict[str, float] = {}  # caller -> when
        self._last, self._last_at = "", -math.inf  # who was here last
        self._before_at = -math.inf  # when somebody else was
        self._aside: dict[str, deque[asyncio.Future[None]]] = {}  # the caller whose turn is next first
        self._room = _MOST_BYTES
        self._seen = self._looks = 0
        self._looking = False

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler, when its turn has come."""

        async def in_turn(request: Received, context: Context) -> Answer:
            name, now = caller(), asyncio.get_running_loop().time()
            self._note(name, now)
            size = _size_of(request) if self._is_put_aside(name, now) else 0
            counted = 0 if isinstance(request, Unread) else size  # the largest are counted elsewhere (`traffic`)
            if size > _LARGE_BYTES and counted <= self._room:
                self._room -= counted
                try:
                    await self._wait(name)
                finally:
                    self._room += counted
            try:
                return await handler(request, context)
            except (Overloaded, DeadlineExceeded) as error:
                if error.retry_after_s is not None:
                    self._note_refused(name)
                raise

        return in_turn

    def _note(self, name: str, now: float) -> None:
        if name != self._last:
            self._last, self._before_at = name, self._last_at
        self._last_at = now

    def _note_refused(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self._refused.pop(name, None)
        self._refused[name] = now
        while len(self._refused) > _REMEMBERED or now - next(iter(self._refused.values())) > _LATELY_S:
            del self._refused[next(iter(self._refused))]

    def _is_put_aside(self, name: str, now: float) -> bool:
        refused = self._refused.get(name, -math.inf)
        return now - refused < _LATELY_S and now - self._before_at < _LATELY_S

    async def _wait(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._aside.setdefault(name, deque()).append(turn)
        if not self._looking:
            self._looking, self._looks, self._seen = True, 0, self._arrived()
            loop.call_later(_LOOK_S, self._look)
        await turn

    def _look(self) -> None:
        """Lets one go on, if nothing has arrived since the last look, or it is time."""
        seen, self._seen = self._seen, self._arrived()
        self._looks += 1
        if seen == self._seen or self._looks >= _MOST_LOOKS:
            self._looks = 0
            self._begin_one()
        self._looking = bool(self._aside)
        if self._looking:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _begin_one(self) -> None:
        while self._aside:
            name, queue = next(iter(self._aside.items()))
            turn = queue.popleft()
            del self._aside[name]
            if queue:  # behind all others
                self._aside[name] = queue
            if not turn.done():  # else its caller has left
                turn.set_result(None)
                return


def _size_of(request: Received) -> int:
    if isinstance(request, Message):
        return request.ByteSize()
    return len(request.raw) if isinstance(request, Unread) else 0
