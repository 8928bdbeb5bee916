"""Bytes -> messages. What cannot be read becomes a value, never an exception.

An exception in a gRPC deserialiser ends the call as INTERNAL with no sentence; a value goes the way of every request
and is answered like every other bad input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from google.protobuf import empty_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ..errors import InvalidInput

MessageT = TypeVar("MessageT", bound=Message)

_LENGTH_DELIMITED = 2


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a request that could not be read."""

    error: InvalidInput


def reader(message_type: type[MessageT], max_message_bytes: int) -> Callable[[bytes], MessageT | Unreadable]:
    """A deserialiser of requests that raises nothing."""

    def read(raw: bytes) -> MessageT | Unreadable:
        if len(raw) > max_message_bytes:
            return Unreadable(
                InvalidInput(
                    "request",
                    f"{len(raw)} bytes exceed --max-message-bytes {max_message_bytes}; send several smaller requests",
                )
            )
        try:
            return message_type.FromString(raw)
        except DecodeError:
            return Unreadable(_explain(cast(Descriptor, message_type.DESCRIPTOR), raw))

    return read


def _explain(descriptor: Descriptor, raw: bytes) -> InvalidInput:
    for path in _texts_that_are_not_utf8(descriptor, raw, ""):
        return InvalidInput(path, "not valid UTF-8; encode the text as UTF-8, replacing what cannot be encoded")
    return InvalidInput(
        "request", f"the bytes are not a {descriptor.full_name}; build the request from this server's .proto files"
    )


def _texts_that_are_not_utf8(descriptor: Descriptor, raw: bytes, prefix: str) -> Iterator[str]:
    """Paths of string fields with broken text. Reads the wire format without a schema, which accepts any bytes."""
    try:
        fields = UnknownFieldSet(empty_pb2.Empty.FromString(raw))
    except DecodeError:
        return
    seen: dict[int, int] = {}
    for number, wire_type, data in (
        (field.field_number, field.wire_type, field.data) for field in (fields[at] for at in range(len(fields)))
    ):
        field = descriptor.fields_by_number.get(number)
        if field is None or wire_type != _LENGTH_DELIMITED:
            continue
        index = seen.get(number, 0)
        seen[number] = index + 1
        path = f"{prefix}{field.name}[{index}]" if field.is_repeated else f"{prefix}{field.name}"
        if field.message_type is not None:
            yield from _texts_that_are_not_utf8(field.message_type, data, f"{path}.")
        elif field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(data):
            yield path


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
