"""Bounds what requests and answers may take of memory while they are on their way.

A message that takes its time to arrive needs a place, and places are few. Where there is none, further messages are
not read: gRPC's flow control holds them back with the client, all but a few MiB. No place is held for long: a message
that does not arrive in time ends its call, and where others wait for its place it has a second. Large messages count
until their call has ended, answers too, so that who does not read what it asked for gets no more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, cast

import grpc

from ..config import ConnectionConfig, RequestLimits
from ..errors import DeadlineExceeded, InvalidInput, NotReady, Overloaded, PairwireError
from ..freed_memory import return_freed_memory
from .method import Answer, Headed
from .wire import INLINE_BYTES, Received, Unread, Unreadable

Context: TypeAlias = "grpc.aio.ServicerContext[Received, Answer]"

Closing: TypeAlias = Callable[[], None]
Release: TypeAlias = Callable[[], None]

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


_NO_MESSAGE = "the call has no message; send one"


def size_of(answer: Answer) -> int:
    """Bytes of an answer."""
    response = answer.response if isinstance(answer, Headed) else answer
    return len(response) if isinstance(response, bytes) else response.ByteSize()


def _nothing() -> None:
    """What is done for a message that took nothing."""


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

    async def read(self, context: Context) -> Received | None:
        """The call's next message; None where there is none.

        Raises:
            DeadlineExceeded: it did not arrive in time.
            Overloaded: it arrived slowly while others waited.
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
        return None if message is grpc.aio.EOF else cast(Received, message)

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
        self._streams: dict[str, set[Closing]] = {}
        self._streams_closed = False
        self._most_streams = connections.max_open_streams

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

    def close_streams(self) -> None:
        """Has calls of many requests take no more of them; what they have taken is answered."""
        self._streams_closed = True
        for streams in list(self._streams.values()):
            for close in list(streams):
                close()

    def enter(self, context: Context) -> None:
        """A call has begun; it is inside until its answer has been sent."""
        self.arrived += 1
        self._inside += 1
        self._empty.clear()
        context.add_done_callback(self._leave)  # type: ignore[arg-type]  # the stub names its argument

    async def receive(self, context: Context) -> Received:
        """The call's only message; a value that explains itself where it cannot be had."""
        self.enter(context)
        message = await self.receive_next(context)
        return Unreadable(InvalidInput("request", _NO_MESSAGE)) if message is None else message

    async def receive_next(self, context: Context) -> Received | None:
        """As ``receive``, of a call that may have several; None after the last."""
        try:
            if self._held:
                self._check(context.peer(), 0)
            message = await self._places.read(context)
            if isinstance(message, Unread):
                self._check(context.peer(), message.size)
                self._until_done(context, message.size)
        except PairwireError as error:
            self._trim_soon()  # of what has arrived of it
            return Unreadable(error)
        return message

    def admit(self, context: Context, message: Received) -> tuple[Received, Release]:
        """A message of a call of many requests, and what to call when its answer has been sent."""
        size = message.size if isinstance(message, Unread) else 0
        if not size and not self._held:
            return message, _nothing
        try:
            self._check(context.peer(), size)
        except PairwireError as error:
            return Unreadable(error), _nothing
        return message, self._hold(context.peer(), size) if size else _nothing

    def take(self, context: Context, size: int) -> Unreadable | None:
        """Counts bytes of small messages that a call gathers, until it ends; what to answer where there is no room."""
        try:
            self._check(context.peer(), size)
        except PairwireError as error:
            return Unreadable(error)
        self._until_done(context, size)
        return None

    def hold_answer(self, context: Context, size: int) -> Release:
        """Counts an answer of a call of many until the returned function is called."""
        return self._hold(context.peer(), size) if size > INLINE_BYTES else _nothing

    @contextmanager
    def stream(self, context: Context, close: Closing) -> Iterator[None]:
        """A call of many requests, for as long as it is open. ``close`` has it take no more of them.

        Raises:
            Overloaded: there are too many such calls, on this connection or on all.
            NotReady: the server drains.
        """
        if self._streams_closed:
            raise NotReady("the server is draining; open the stream again, to another server")
        peer = context.peer()
        here, all_of_them = len(self._streams.get(peer, ())), sum(map(len, self._streams.values()))
        if all_of_them >= self._most_streams or here >= max(1, self._most_streams // _OF_ONE):
            raise Overloaded(
                f"{here} streams are open on this connection and {all_of_them} on all, of --max-open-streams "
                f"{self._most_streams}; end some, or send several requests on one",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._streams.setdefault(peer, set()).add(close)
        try:
            yield
        finally:
            self._streams[peer].discard(close)
            if not self._streams[peer]:
                del self._streams[peer]

    def note_answer(self, context: Context, answer: Answer) -> None:
        """An answer that is about to be sent."""
        size = size_of(answer)
        if size > INLINE_BYTES:
            self._until_done(context, size)

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

    def _until_done(self, context: Context, size: int) -> None:
        release = self._hold(context.peer(), size)
        context.add_done_callback(lambda ended: release())  # type: ignore[arg-type]  # the stub names its argument

    def _hold(self, peer: str, size: int) -> Release:
        """Counts bytes of a large message until the returned function is called."""
        self._held += size
        self._of_peer[peer] += size

        def release() -> None:
            self._held -= size
            self._of_peer[peer] -= size
            if not self._of_peer[peer]:
                del self._of_peer[peer]
            self._trim_soon()

        return release

    def _trim_soon(self) -> None:
        if not self._trimming:
            self._trimming = True
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        self._trimming = False
        asyncio.get_running_loop().run_in_executor(None, return_freed_memory)
