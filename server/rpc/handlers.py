"""A method as a servicer declares it -> what gRPC calls: messages read within bounds, interceptors around the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from ..config import RequestLimits
from ..security.access import Access
from ..security.roles import need_of_rpc
from .interceptors import Context, ErrorsToStatus, Gate, Handler, Interceptor
from .method import AllTogether, Answer, EachAnswered, Headed, Method
from .streams import Conversation, collect, patient
from .traffic import Traffic
from .wire import Received, Unread, Unreadable, reader


def handler_of(
    method: Method[Any], interceptors: Sequence[Interceptor], limits: RequestLimits, traffic: Traffic, access: Access
) -> grpc.RpcMethodHandler[Any, Any]:
    """What gRPC calls for the method. The first interceptor is the outermost.

    Whether a call may be made is decided before its message is read; the refusal goes the way of all answers.
    """
    if isinstance(method.stream, EachAnswered):
        return _each_answered(method, method.stream, interceptors, limits, traffic, access)
    handler = _wrapped(method, _innermost(method.call), interceptors)
    need = need_of_rpc(method.name)

    def refused(context: Context) -> Unreadable | None:
        error = access.refusal(context.invocation_metadata(), need)
        if error is None:
            return None
        traffic.enter(context)
        return Unreadable(error)

    if isinstance(method.stream, AllTogether):
        return _all_together(method.stream, handler, limits, traffic, refused)

    async def received(messages: object, context: Context) -> Answer:
        answer = await handler(refused(context) or await traffic.receive(context), context)
        traffic.note_answer(context, answer)
        return await _after_headers(answer, context)

    # Unary on the wire. A unary handler would be called when its message is there, however large, and however slow.
    return grpc.stream_unary_rpc_method_handler(
        received,
        request_deserializer=reader(method.request_type, limits, method.read_large),
        response_serializer=_serialize,
    )


def _all_together(
    stream: AllTogether,
    handler: Handler,
    limits: RequestLimits,
    traffic: Traffic,
    refused: Callable[[Context], Unreadable | None],
) -> grpc.RpcMethodHandler[Any, Any]:
    async def received(messages: object, context: Context) -> Answer:
        request: Received | None = refused(context)
        if request is None:
            traffic.enter(context)
            request = await collect(stream, limits, traffic, context)
        answer = await handler(request, context)
        traffic.note_answer(context, answer)
        return await _after_headers(answer, context)

    return grpc.stream_unary_rpc_method_handler(
        received, request_deserializer=reader(stream.message_type, limits), response_serializer=_serialize
    )


def _each_answered(
    method: Method[Any],
    stream: EachAnswered,
    interceptors: Sequence[Interceptor],
    limits: RequestLimits,
    traffic: Traffic,
    access: Access,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Each request goes through the interceptors; what ends the whole call becomes its status."""
    around = [each for each in interceptors if not isinstance(each, ErrorsToStatus)]
    handler = _wrapped(method, _innermost(patient(method.call)), around)
    need = need_of_rpc(method.name)

    async def admitted(request: Received, context: Context) -> Answer:
        # Of every request: a stream may be open for days, and its key be taken away meanwhile.
        access.admit(context.invocation_metadata() or (), need)
        return await handler(request, context)

    async def converse(request: object, context: Context) -> Any:
        traffic.enter(context)
        access.admit(context.invocation_metadata() or (), need)
        await Conversation(method.shown, admitted, stream, context, traffic).run()

    return grpc.stream_stream_rpc_method_handler(
        ErrorsToStatus().wrap(method.shown, converse),
        request_deserializer=reader(method.request_type, limits, method.read_large),
        response_serializer=_serialize,
    )


def _wrapped(method: Method[Any], handler: Handler, interceptors: Sequence[Interceptor]) -> Handler:
    for interceptor in reversed(interceptors):
        if method.probe and isinstance(interceptor, Gate):
            continue
        handler = interceptor.wrap(method.shown, handler)
    return handler


def _innermost(call: Callable[[Any, float | None, bool], Awaitable[Answer]]) -> Handler:
    async def handler(request: Received, context: Context) -> Answer:
        if isinstance(request, Unreadable):
            raise request.error
        large = isinstance(request, Unread)
        message = await request.read() if isinstance(request, Unread) else request
        return await call(message, context.time_remaining(), large)

    return handler


async def _after_headers(answer: Answer, context: Context) -> Answer:
    if not isinstance(answer, Headed):
        return answer
    try:
        await context.send_initial_metadata(answer.headers)
    except grpc.aio.InternalError:  # the caller left a moment ago; gRPC would log a traceback of that
        raise asyncio.CancelledError from None
    return answer.response


def _serialize(response: Any) -> bytes:
    plain: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return plain
