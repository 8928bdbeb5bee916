"""Handlers for health and reflection: whoever sends what cannot be read gets an error, and nothing is logged of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from ..errors import InvalidInput
from ..security.access import Access
from ..security.roles import Need
from .inflate import inflate, is_compressed
from .status import code_of

MessageT = TypeVar("MessageT", bound=Message)

_UNREADABLE = object()
_MOST_BYTES = 1 << 18
"""Of a request, once it is inflated."""


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


def guarded(
    call: Callable[[Any, Any], AsyncIterator[Message]], access: Access, need: Need
) -> Callable[[Any, Any], AsyncIterator[Message]]:
    """The same call, for those who may make it."""

    async def checked(requests: Any, context: Any) -> AsyncIterator[Message]:
        if error := access.refusal(context.invocation_metadata(), need):
            await context.abort(code_of(error), str(error))
        async for answer in call(requests, context):
            yield answer

    return checked


def _reader(request_type: type[Message]) -> Callable[[bytes], object]:
    """What raises in a deserialiser is logged by gRPC, with a traceback; so this one does not."""

    def read(raw: bytes) -> object:
        try:
            plain = inflate(raw, _MOST_BYTES) if is_compressed(raw) else raw
            return _UNREADABLE if plain is None else request_type.FromString(plain)
        except (DecodeError, InvalidInput):
            return _UNREADABLE

    return read


async def _checked(request: object, context: Any, request_type: type[Message]) -> object:
    if request is _UNREADABLE:
        name = request_type.DESCRIPTOR.full_name
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"request: the bytes are not a {name}")
    return request


def _serialize(answer: Message) -> bytes:
    return answer.SerializeToString()
