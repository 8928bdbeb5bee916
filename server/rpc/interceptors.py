"""What every RPC goes through, one concern a class.

Handlers are wrapped once, when the server is built: grpc.aio's own interceptors are awaited again on each
call.
The order is in `server.build_server`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import grpc

from ..clock import Clock
from ..errors import NotReady, PairwireError
from .details import clip, trailers
from .method import Answer
from .status import code_of
from .wire import Received, model_of

logger = logging.getLogger(__name__)

_EARLY_S = 0.02

Context: TypeAlias = "grpc.aio.ServicerContext[Received, Answer]"
Handler: TypeAlias = Callable[[Received, Context], Awaitable[Answer]]


class Interceptor(Protocol):
    """Puts something around a handler."""

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler to call instead. ``rpc`` is the method's name, e.g. ``Score``."""
        ...


class ErrorsToStatus:
    """Ends an RPC that raised with the right status. Outermost: nothing raises past it but cancellation."""

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler, which now aborts where it raised."""

        async def answered(request: Received, context: Context) -> Answer:
            try:
                return await handler(request, context)
            except BaseException as error:
                message = _message(rpc, error)
                # gRPC keeps the exception in a ring that only the garbage collector frees, some time or other; and it
                # keeps the frames that it came through, with all that they hold of the request.
                error.__traceback__ = error.__cause__ = error.__context__ = None
                del request
                if message is None:
                    raise
                code = code_of(error)
                try:
                    await context.abort(code, message, trailers(error, code, message))
                except grpc.aio.InternalError:  # the caller left a moment ago; gRPC would log a traceback of that
                    raise asyncio.CancelledError from None
                raise  # never reached: abort raises, as its stub says

        return answered


class RpcListener(Protocol):
    """Hears of every RPC that ends."""

    def rpc_finished(self, rpc: str, model: str, code: str, seconds: float) -> None:
        """``model`` is the name that the request asked for, whatever it is; ``code`` e.g. ``OK``."""
        ...


class Measure:
    """Tells a listener how each RPC ended and how long it took. It needs the error itself."""

    def __init__(self, listener: RpcListener, clock: Clock) -> None:
        self._listener = listener
        self._clock = clock

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler, measured."""
        listener, now = self._listener, self._clock.monotonic

        async def measured(request: Received, context: Context) -> Answer:
            started = now()
            code = grpc.StatusCode.OK
            try:
                return await handler(request, context)
            except BaseException as error:
                code = code_of(error)
                if code is grpc.StatusCode.CANCELLED and _is_late(context):
                    code = grpc.StatusCode.DEADLINE_EXCEEDED  # gRPC cancels handlers for that too
                raise
            finally:
                listener.rpc_finished(rpc, model_of(request), code.name, now() - started)

        return measured


class AccessLogger:
    """Logs each RPC at DEBUG: name, model, code, milliseconds; never texts."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def rpc_finished(self, rpc: str, model: str, code: str, seconds: float) -> None:
        """One line."""
        extra = {"rpc": rpc, "model": clip(model), "code": code, "ms": round(seconds * 1000, 3)}
        self._log.debug("rpc", extra=extra)


class Gate:
    """Lets RPCs in only while the server serves. It starts closed."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._released = asyncio.Event()
        self._released.set()

    def open(self) -> None:
        """Lets RPCs in."""
        self._reason = ""

    def close(self, reason: str) -> None:
        """Answers new RPCs with UNAVAILABLE and this sentence; those inside go on."""
        self._reason = reason

    def hold(self) -> None:
        """Lets RPCs in, but no further until ``release``."""
        self._released.clear()

    def release(self) -> None:
        """Lets those that were held go on."""
        self._released.set()

    def wrap(self, rpc: str, handler: Handler) -> Handler:
        """The handler behind the gate."""

        async def admitted(request: Received, context: Context) -> Answer:
            if self._reason:
                raise NotReady(self._reason)
            if not self._released.is_set():
                await self._released.wait()
            return await handler(request, context)

        return admitted


def _is_late(context: Context) -> bool:
    """Whether the deadline has passed, or is about to: gRPC's timers go off some milliseconds early."""
    left = context.time_remaining()
    return left is not None and left < _EARLY_S


def sentence(rpc: str, error: BaseException) -> str:
    """The caller's message, whatever was raised; a cancellation is raised again where no caller is left."""
    message = _message(rpc, error)
    if message is None:
        raise error
    return message


def _message(rpc: str, error: BaseException) -> str | None:
    """The same; None where no caller is left."""
    if isinstance(error, PairwireError):
        return clip(error.message)
    if isinstance(error, asyncio.CancelledError) and not _caller_has_gone():
        return "the request was cancelled inside the server; try again"
    if isinstance(error, asyncio.CancelledError):
        return None
    incident = secrets.token_hex(4)
    logger.error("%s failed, incident %s", rpc, incident, exc_info=error)
    return f"an error inside the server; its log has the details under incident {incident}"


def _caller_has_gone() -> bool:
    """Whether this task was cancelled (gRPC does that), rather than something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
