"""Each interceptor around a handler of the test's own, without a network."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

import grpc
import pytest
from google.protobuf.message import Message

from pairwire.server import errors
from pairwire.server.engine import SimClock
from pairwire.server.rpc.interceptors import AccessLogger, ErrorsToStatus, Gate, Handler, Interceptor, Measure
from pairwire.server.rpc.wire import Unreadable
from pairwire.v1 import scoring_pb2

REQUEST = scoring_pb2.ScoreRequest(model="m")
RESPONSE = scoring_pb2.ScoreResponse(model="m")


class Aborted(Exception):
    """What the stub context raises in place of gRPC's own."""


class StubContext:
    """The part of a servicer context that interceptors use."""

    def __init__(self, time_remaining: float | None = None) -> None:
        self.ended: tuple[grpc.StatusCode, str, object] | None = None
        self._time_remaining = time_remaining

    def time_remaining(self) -> float | None:
        return self._time_remaining

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
        self.ended = (code, details, trailing_metadata)
        raise Aborted


def raising(error: BaseException) -> Handler:
    async def handler(request: Message | Unreadable, context: object) -> Message:
        raise error

    return handler


async def answering(request: Message | Unreadable, context: object) -> Message:
    return RESPONSE


async def run(interceptor: Interceptor, handler: Handler, context: StubContext | None = None) -> Message:
    wrapped = interceptor.wrap("Score", handler)
    return await wrapped(REQUEST, context or StubContext())  # type: ignore[arg-type]  # a stub of a large interface


async def test_an_answer_passes_through_everything() -> None:
    gate = Gate("closed")
    gate.open()
    for interceptor in (ErrorsToStatus(), Measure(Listener(), SimClock()), gate):
        assert await run(interceptor, answering) is RESPONSE


async def test_an_error_ends_the_call_with_its_code_sentence_and_trailers() -> None:
    context = StubContext()
    with pytest.raises(Aborted):
        await run(ErrorsToStatus(), raising(errors.Overloaded("the queue is full", retry_after_s=0.5)), context)
    assert context.ended == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "the queue is full",
        (("grpc-retry-pushback-ms", "500"),),
    )


async def test_an_unforeseen_error_tells_the_caller_only_where_to_look(caplog: pytest.LogCaptureFixture) -> None:
    context = StubContext()
    with pytest.raises(Aborted):
        await run(ErrorsToStatus(), raising(ValueError("secret text of a user")), context)
    assert context.ended is not None
    code, message, _ = context.ended
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message
    (record,) = caplog.records
    assert message.split()[-1] in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_the_cancellation_of_the_call_itself_passes() -> None:
    context, entered = StubContext(), asyncio.Event()

    async def waiting(request: Message | Unreadable, context: object) -> Message:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(run(ErrorsToStatus(), waiting, context))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.ended is None


async def test_where_nobody_is_left_to_be_told_grpc_sees_a_cancellation() -> None:
    class Left(StubContext):
        async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> NoReturn:
            raise grpc.aio.InternalError("the status could not be sent")

    with pytest.raises(asyncio.CancelledError):  # of anything else gRPC would log a traceback
        await run(ErrorsToStatus(), raising(errors.DeadlineExceeded("too late")), Left())


async def test_a_cancellation_from_inside_is_answered() -> None:
    context = StubContext()
    with pytest.raises(Aborted):
        await run(ErrorsToStatus(), raising(asyncio.CancelledError()), context)
    assert context.ended is not None
    assert context.ended[0] is grpc.StatusCode.CANCELLED


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, float]] = []

    def rpc_finished(self, rpc: str, model: str, code: str, seconds: float) -> None:
        self.told.append((rpc, model, code, seconds))


@pytest.mark.parametrize(
    ("error", "time_remaining", "code"),
    [
        (errors.NotReady("loading"), None, "UNAVAILABLE"),
        (ZeroDivisionError(), None, "INTERNAL"),
        (asyncio.CancelledError(), None, "CANCELLED"),
        (asyncio.CancelledError(), 1.0, "CANCELLED"),
        (asyncio.CancelledError(), 0.0, "DEADLINE_EXCEEDED"),
    ],
)
async def test_how_an_rpc_ended_is_measured(error: BaseException, time_remaining: float | None, code: str) -> None:
    listener = Listener()
    with pytest.raises(type(error)):
        await run(Measure(listener, SimClock()), raising(error), StubContext(time_remaining))
    assert listener.told == [("Score", "m", code, 0.0)]


async def test_how_long_an_rpc_took_is_measured() -> None:
    listener, clock = Listener(), SimClock()

    async def slow(request: Message | Unreadable, context: object) -> Message:
        clock.advance(2.5)
        return RESPONSE

    await run(Measure(listener, clock), slow)
    assert listener.told == [("Score", "m", "OK", 2.5)]


def test_the_access_log_has_no_texts_and_is_quiet_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test.access")
    access = AccessLogger(log)
    with caplog.at_level(logging.INFO, "test.access"):
        access.rpc_finished("Score", "m", "OK", 0.0125)
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, "test.access"):
        access.rpc_finished("Score", "m", "OK", 0.0125)
    (record,) = caplog.records
    told = vars(record)
    assert (told["rpc"], told["model"], told["code"], told["ms"]) == ("Score", "m", "OK", 12.5)


async def test_a_gate_starts_closed_and_says_why() -> None:
    gate = Gate("the server is loading")
    with pytest.raises(errors.NotReady, match="the server is loading"):
        await run(gate, answering)


async def test_a_closed_gate_lets_those_inside_finish() -> None:
    gate, finish = Gate("closed"), asyncio.Event()
    gate.open()

    async def waiting(request: Message | Unreadable, context: object) -> Message:
        await finish.wait()
        return RESPONSE

    inside = asyncio.create_task(run(gate, waiting))
    await asyncio.sleep(0)
    gate.close("draining")
    with pytest.raises(errors.NotReady, match="draining"):
        await run(gate, answering)
    finish.set()
    assert await inside is RESPONSE


async def test_a_held_rpc_is_inside_and_served_on_release() -> None:
    gate = Gate("closed")
    gate.open()
    gate.hold()
    held = asyncio.create_task(run(gate, answering))
    await asyncio.sleep(0)
    assert not held.done()
    gate.release()
    assert await held is RESPONSE
