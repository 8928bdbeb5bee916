"""Bounds what requests and answers may take of memory while they are on their way.

A message that takes its time to arrive needs a place, and places are few. Where there is none, further messages are
not read: gRPC's flow control holds them back with the client, all but a few MiB. No place is held for long: a message
that does not arrive in time ends its call, and where others wait for its place it has a second. Large messages count
until their call has ended, answers too, so that who does not read what it asked for gets no more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias, cast

import grpc

from ..config import ConnectionConfig, RequestLimits
from ..errors import DeadlineExceeded, InvalidInput, Overloaded, PairwireError
from ..freed_memory import return_freed_memory
from .method import Answer
from .wire import INLINE_BYTES, Received, Unread, Unreadable

Context: TypeAlias = "grpc.aio.ServicerContext[Received, Answer]"

FEWEST_PLACES = 8
"""However large a message may be."""
PATIENCE_S = 1.0
"""What a message has to arrive in while others wait for its place."""
_OF_ONE = 2
"""A connection may have one in this many of the places, and of the bytes, but at least a message and its answer."""
_FAST_S = 0.05
"""A message that takes longer than twice this needs a place."""
_RETRY_AFTER_S = 1.0
_TRIM_AFTER_S = 5.0
"""After large messages, and not more often, freed memory is given back to the system."""


class _Reading:
    """A message that is being received."""

    def __init__(self, peer: str, limit: asyncio.Timeout, on_slow: Callable[[_Reading], None]) -> None:
        self.peer = peer
        self.cut = False
        """Whether others need its place."""
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        # Twice: where the event loop was held up, what has arrived meanwhile is seen between the two.
        self._timer = self._loop.call_later(_FAST_S, self._look_again, on_slow)

    def end(self) -> None:
        """It has arrived, or will not."""
        self._timer.cancel()

    def cut_after(self, seconds: float) -> None:
        """Has it end, if it does not arrive within this many seconds of its beginning."""
        self.cut = True
        self._limit.reschedule(max(self._loop.time(), self._started + seconds))

    def _look_again(self, on_slow: Callable[[_Reading], None]) -> None:
        self._timer = self._loop.call_later(_FAST_S, on_slow, self)


class Places:
    """Where messages that take their time are received: this many at once. Belongs to one event loop.

    Small ones, and those of fast networks, never see it. It is when a message has not arrived for a while that it needs
    a place, and is cut off where there is none. As long as all places are taken, no new message is begun with.
    """

    def __init__(self, most: int, most_of_one: int, timeout_s: float) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._timeout_s = timeout_s
        self._slow: dict[_Reading, None] = {}
        self._peers: Counter[str] = Counter()
        self._given_back = asyncio.Event()

    async def read(self, context: Context) -> Received:
        """The call's message.

        Raises:
            DeadlineExceeded: it did not arrive in time.
            Overloaded: it arrived slowly while others waited.
            InvalidInput: there is none.
        """
        peer = context.peer()
        while self._is_full(peer):
            self._hurry(peer)
            await self._given_back.wait()
        limit = asyncio.timeout(self._timeout_s)
        reading = _Reading(peer, limit, self._needs_place)
        try:
            async with limit:
                message: object = await context.read()
        except TimeoutError:
            raise self._why(reading) from None
        finally:
            self._end(reading)
        if message is grpc.aio.EOF:
            raise InvalidInput("request", "the call has no message; send one")
        return cast(Received, message)

    def hurry_all(self) -> None:
        """Nobody has a place for longer than those do that others wait for."""
        for reading in self._slow:
            reading.cut_after(PATIENCE_S)

    def _is_full(self, peer: str) -> bool:
        return len(self._slow) >= self._most or self._peers[peer] >= self._most_of_one

    def _needs_place(self, reading: _Reading) -> None:
        if self._is_full(reading.peer):
            reading.cut_after(0.0)
        else:
            self._slow[reading] = None
            self._peers[reading.peer] += 1

    def _hurry(self, peer: str) -> None:
        """Somebody waits: the one that has been arriving for longest, of those in the way, has not much time left."""
        own = self._peers[peer] >= self._most_of_one
        in_the_way = (each for each in self._slow if not each.cut and (each.peer == peer or not own))
        oldest = next(in_the_way, None)
        if oldest is not None:
            oldest.cut_after(PATIENCE_S)

    def _end(self, reading: _Reading) -> None:
        reading.end()
        if reading not in self._slow:
            return
        del self._slow[reading]
        self._peers[reading.peer] -= 1
        if not self._peers[reading.peer]:
            del self._peers[reading.peer]
        given_back, self._given_back = self._given_back, asyncio.Event()
        given_back.set()

    def _why(self, reading: _Reading) -> PairwireError:
        if reading.cut:
            sentence = "the request arrived too slowly while others waited; try again"
            return Overloaded(sentence, retry_after_s=_RETRY_AFTER_S)
        return DeadlineExceeded(
            f"the request had not arrived after --upload-timeout-s {self._timeout_s:g}; send less at once"
        )


class Traffic:
    """All messages of a server that are on their way, in and out."""

    def __init__(self, limits: RequestLimits, connections: ConnectionConfig) -> None:
        self._limit = connections.max_inflight_bytes
        largest = limits.max_message_bytes + limits.max_answer_bytes
        self._limit_of_one = min(self._limit, max(largest, self._limit // _OF_ONE))
        places = max(FEWEST_PLACES, self._limit // limits.max_message_bytes)
        self._places = Places(places, max(1, places // _OF_ONE), connections.upload_timeout_s)
        self.arrived = 0
        """Calls so far."""
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._held = 0
        self._trimming = False
        self._of_peer: Counter[str] = Counter()

    @property
    def held_bytes(self) -> int:
        """Large messages of calls that have not ended."""
        return self._held

    @property
    def inside(self) -> int:
        """Calls that have begun, and whose answers are not sent yet."""
        return self._inside

    async def wait_empty(self) -> None:
        """Returns when there are none."""
        await self._empty.wait()

    def hurry(self) -> None:
        """Has whatever still arrives arrive soon, or end."""
        self._places.hurry_all()

    async def receive(self, context: Context) -> Received:
        """The call's message; a value that explains itself where it cannot be had."""
        self.arrived += 1
        self._inside += 1
        self._empty.clear()
        context.add_done_callback(self._leave)  # type: ignore[arg-type]  # the stub names its argument
        try:
            if self._held:
                self._check(context.peer(), 0)
            message = await self._places.read(context)
            if isinstance(message, Unread):
                self._check(context.peer(), len(message.raw))
                self._hold(context, len(message.raw))
        except PairwireError as error:
            self._trim_soon()  # of what has arrived of it
            return Unreadable(error)
        return message

    def note_answer(self, context: Context, answer: Answer) -> None:
        """An answer that is about to be sent."""
        size = len(answer) if isinstance(answer, bytes) else answer.ByteSize()
        if size > INLINE_BYTES:
            self._hold(context, size)

    def _leave(self, ended: Context) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    def _check(self, peer: str, size: int) -> None:
        if self._held + size > self._limit or self._of_peer[peer] + size > self._limit_of_one:
            raise Overloaded(
                f"{self._of_peer[peer]} bytes of requests and answers are on their way on this connection, "
                f"{self._held} on all, and there is no room for {size} more; read what was answered, or try again",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _hold(self, context: Context, size: int) -> None:
        peer = context.peer()
        self._held += size
        self._of_peer[peer] += size

        def release(ended: Context) -> None:
            self._held -= size
            self._of_peer[peer] -= size
            if not self._of_peer[peer]:
                del self._of_peer[peer]
            self._trim_soon()

        context.add_done_callback(release)  # type: ignore[arg-type]  # the stub names its argument

    def _trim_soon(self) -> None:
        if not self._trimming:
            self._trimming = True
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        self._trimming = False
        asyncio.get_running_loop().run_in_executor(None, return_freed_memory)
