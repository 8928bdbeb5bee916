"""Handlers for health and reflection: whoever sends what cannot be read gets an error, and nothing is logged of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

MessageT = TypeVar("MessageT", bound=Message)

_UNREADABLE = object()


def unary(
    call: Callable[[Any, Any], Awaitable[Message]], request_type: type[Message]
) -> grpc.RpcMethodHandler[Any, Any]:
    """One request, one answer."""

    async def tolerant(request: object, context: Any) -> Message:
        return await call(await _checked(request, context, request_type), context)

    return grpc.unary_unary_rpc_method_handler(
        tolerant, request_deserializer=_reader(request_type), response_serializer=_serialize
    )


def streaming(
    call: Callable[[Any, Any], AsyncIterator[Message]], request_type: type[Message]
) -> grpc.RpcMethodHandler[Any, Any]:
    """One request, many answers."""

    async def tolerant(request: object, context: Any) -> AsyncIterator[Message]:
        async for answer in call(await _checked(request, context, request_type), context):
            yield answer

    return grpc.unary_stream_rpc_method_handler(
        tolerant, request_deserializer=_reader(request_type), response_serializer=_serialize
    )


def conversing(
    call: Callable[[Any, Any], AsyncIterator[Message]], request_type: type[Message]
) -> grpc.RpcMethodHandler[Any, Any]:
    """Many requests, many answers."""

    async def tolerant(requests: AsyncIterator[object], context: Any) -> AsyncIterator[Message]:
        async def checked() -> AsyncIterator[object]:
            async for request in requests:
                yield await _checked(request, context, request_type)

        async for answer in call(checked(), context):
            yield answer

    return grpc.stream_stream_rpc_method_handler(
        tolerant, request_deserializer=_reader(request_type), response_serializer=_serialize
    )


def _reader(request_type: type[Message]) -> Callable[[bytes], object]:
    """What raises in a deserialiser is logged by gRPC, with a traceback; so this one does not."""

    def read(raw: bytes) -> object:
        try:
            return request_type.FromString(raw)
        except DecodeError:
            return _UNREADABLE

    return read


async def _checked(request: object, context: Any, request_type: type[Message]) -> object:
    if request is _UNREADABLE:
        name = request_type.DESCRIPTOR.full_name
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"request: the bytes are not a {name}")
    return request


def _serialize(answer: Message) -> bytes:
    return answer.SerializeToString()
