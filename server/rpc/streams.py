"""Calls on which many requests are sent: each answered in its turn, or all of them one request.

Answers keep the order of the requests. A few requests are under way at once, so that they share batches; when these are
not answered or their answers not read, no more are read, and gRPC's flow control holds the client back. A full queue
is no error for who has other requests under way: the next one waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from ..config import RequestLimits
from ..errors import InvalidInput, NotReady, Overloaded
from .interceptors import Context, Handler, sentence
from .method import AllTogether, Answer, EachAnswered, Headed
from .traffic import Traffic, size_of
from .wire import INLINE_BYTES, Received, Unread, Unreadable

WINDOW = 64
"""Requests of one call that are under way at once."""
_MOST_UNSENT = 1 << 20
"""Bytes of answers that wait to be sent; with more, no further requests are read."""

_before: ContextVar[asyncio.Task[Answer] | None] = ContextVar("pairwire_before", default=None)
"""The request of the same call that came before."""

Call = Callable[[Any, "float | None", bool], Awaitable[Answer]]


def patient(call: Call) -> Call:
    """The same call, which waits for the requests before it, instead of being refused, where the queue is full."""

    async def waiting(request: Any, timeout_s: float | None, large: bool) -> Answer:
        loop, before = asyncio.get_running_loop(), _before.get()
        started = loop.time()
        while True:
            try:
                left = None if timeout_s is None else timeout_s - (loop.time() - started)
                return await call(request, left, large)
            except Overloaded:
                if before is None or before.done():
                    raise
                await asyncio.wait((before,))

    return waiting


@dataclass(slots=True)
class _Item:
    """A request that is under way."""

    request: Received
    task: asyncio.Task[Answer]
    release: Callable[[], None]


class Conversation:
    """One call of many requests, each of them answered."""

    def __init__(self, rpc: str, handler: Handler, stream: EachAnswered, context: Context, traffic: Traffic) -> None:
        self._rpc = rpc
        self._handler = handler
        self._stream = stream
        self._context = context
        self._traffic = traffic
        self._room = asyncio.Semaphore(WINDOW)
        self._unsent = 0
        self._few_unsent = asyncio.Event()
        self._few_unsent.set()
        self._items: asyncio.Queue[_Item | BaseException | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None
        self._last: asyncio.Task[Answer] | None = None

    async def run(self) -> None:
        """Reads, serves and answers until the client has sent all, or an error ends the call."""
        with self._traffic.stream(self._context, self.close):
            self._reading = asyncio.create_task(self._read())
            try:
                while (item := await self._items.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    try:
                        await self._answer(item)
                    finally:
                        item.release()
            finally:
                self._reading.cancel()
                self._drop()

    def close(self) -> None:
        """Takes no more requests; those that it has are answered."""
        if self._reading is not None:
            self._reading.cancel()
        self._items.put_nowait(NotReady("the server is draining; open the stream again, to another server"))

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                await self._few_unsent.wait()
                message: Any = await self._context.read()
                if message is grpc.aio.EOF:
                    break
                self._begin(message)
        except Exception as error:
            self._items.put_nowait(error)
        self._items.put_nowait(None)

    def _begin(self, message: Received) -> None:
        request, release = self._traffic.admit(self._context, message)
        self._last = asyncio.create_task(self._serve(request, self._last))
        self._items.put_nowait(_Item(request, self._last, release))

    async def _serve(self, request: Received, before: asyncio.Task[Answer] | None) -> Answer:
        _before.set(before)
        answer = await self._handler(request, self._context)
        self._note_unsent(size_of(answer))
        return answer

    def _note_unsent(self, size: int) -> None:
        self._unsent += size
        if self._unsent > _MOST_UNSENT:
            self._few_unsent.clear()
        else:
            self._few_unsent.set()

    async def _answer(self, item: _Item) -> None:
        try:
            answer = await item.task
        except Exception as error:
            told = self._stream.explain(_message(item.request), sentence(self._rpc, error), self._headers())
            if told is None:
                raise
            answer = told
            self._note_unsent(size_of(answer))
        release = self._traffic.hold_answer(self._context, size_of(answer))
        try:
            await self._context.write(answer.response if isinstance(answer, Headed) else answer)
        except grpc.aio.InternalError:  # the caller left a moment ago
            raise asyncio.CancelledError from None
        finally:
            release()
        self._note_unsent(-size_of(answer))
        self._room.release()

    def _headers(self) -> tuple[tuple[str, str], ...]:
        given: Any = self._context.invocation_metadata() or ()
        return tuple((key, value) for key, value in given if isinstance(value, str))

    def _drop(self) -> None:
        """What is under way and will not be answered."""
        while not self._items.empty():
            item = self._items.get_nowait()
            if isinstance(item, _Item):
                item.task.cancel()
                item.task.add_done_callback(_look_at)
                item.release()


async def collect(stream: AllTogether, limits: RequestLimits, traffic: Traffic, context: Context) -> Received:
    """All messages of a call, as one request; a value that explains itself where they cannot be one."""
    messages: list[Received] = []
    size = 0
    while (message := await traffic.receive_next(context)) is not None:
        if isinstance(message, Unreadable):
            return message
        messages.append(message)
        more = message.size if isinstance(message, Unread) else message.ByteSize()
        size += more
        # Large ones are counted by whoever received them, and what is small in all by nobody.
        if size > INLINE_BYTES and not isinstance(message, Unread) and (full := traffic.take(context, more)):
            return full
        if len(messages) > limits.max_items:
            return _refused(f"more than --max-items {limits.max_items} messages; use several streams")
        if size > limits.max_message_bytes:
            return _refused(f"more than --max-message-bytes {limits.max_message_bytes} in all; use several streams")
    if not messages:
        return _refused("the stream has no message; send one for each text")
    if size <= INLINE_BYTES:
        try:
            return stream.join(messages)
        except InvalidInput as error:
            return Unreadable(error)

    def read(nothing: bytes) -> Message | Unreadable:
        parsed = [each.parse(each.raw) if isinstance(each, Unread) else each for each in messages]
        wrong = next((each for each in parsed if isinstance(each, Unreadable)), None)
        return stream.join(parsed) if wrong is None else wrong

    return Unread(read, b"", size)


def _refused(reason: str) -> Unreadable:
    return Unreadable(InvalidInput("request", reason))


def _message(request: Received) -> Message | None:
    if isinstance(request, Unread):
        return request.message
    return None if isinstance(request, Unreadable) else request


def _look_at(task: asyncio.Task[Answer]) -> None:
    """Nobody else asks how it ended."""
    if not task.cancelled():
        task.exception()
