"""Bytes -> messages. What cannot be read becomes a value, never an exception.

An exception in a gRPC deserialiser ends the call as INTERNAL with no sentence; a value goes the way of every request
and is answered like every other bad input. A large message stays bytes until its handler has a thread read it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from ..config import RequestLimits
from ..errors import InvalidInput, PairwireError
from .fields import LENGTH_DELIMITED, Field, fields_of, varint
from .inflate import inflate, is_compressed, stated_size

MessageT = TypeVar("MessageT", bound=Message)

INLINE_BYTES = 1 << 18
"""Messages up to this size are read on the event loop. Text takes 0.02 to 0.14 ms, the worst there is (nothing but
empty texts, or token ids of one byte) 1.2 ms; a hop to a thread and back takes 0.05 ms (one Zen 4 core)."""
PIECE_BYTES = 1 << 18
"""protobuf holds the interpreter while it reads, on a thread too: 130 ms for 32 MB of token ids. After a piece of this
size, 1 ms, the event loop has its turn."""
_SINGLE_FIELDS = 1000
"""More of a large message's fields than this, besides its texts, are not walked over, for that is done in Python."""
_TEXT_FACTOR = 3
"""Two texts of token ids take up to 2.5 times as many bytes in a message as they count for --max-text-bytes."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a request that could not be read."""

    error: PairwireError


@dataclass(slots=True)
class Unread:
    """A large request that is still to be read."""

    parse: Callable[[bytes], Message | Unreadable]
    raw: bytes
    size: int
    """Bytes of memory that it takes, or will once it is inflated."""
    model: str = ""
    """As in the request, once it has been read."""
    message: Message | None = None
    """The request, once it has been read."""

    async def read(self) -> Message:
        """The request, read by a thread. To be called once: the bytes are given up.

        Raises:
            InvalidInput: it cannot be read.
        """
        raw, self.raw = self.raw, b""
        request = await asyncio.to_thread(self.parse, raw)
        if isinstance(request, Unreadable):
            raise request.error
        self.model, self.message = model_of(request), request
        return request


def model_of(request: object) -> str:
    """The name of the model that a request asks for; empty where it names none."""
    found: str | None = getattr(request, "model", None)
    return getattr(request, "model_name", "") if found is None else found


Received: TypeAlias = Message | Unread | Unreadable
"""A request as a handler gets it."""

ReadLarge: TypeAlias = Callable[[type[Message], bytes, RequestLimits], Message | Unreadable]


def reader(
    message_type: type[MessageT], limits: RequestLimits, read_large: ReadLarge | None = None
) -> Callable[[bytes], MessageT | Unread | Unreadable]:
    """A deserialiser of requests that raises nothing. ``read_large`` reads large ones, on a thread."""
    read_large = read_large or read_in_pieces

    def large(raw: bytes) -> Message | Unreadable:
        return read_large(message_type, raw, limits)

    def large_compressed(raw: bytes) -> Message | Unreadable:
        size = stated_size(raw, limits.max_message_bytes)
        try:
            inflated = inflate(raw, size)
        except InvalidInput as error:
            return Unreadable(error)
        return Unreadable(_too_large(f"more than {size}", limits)) if inflated is None else large(inflated)

    def read(raw: bytes) -> MessageT | Unread | Unreadable:
        if len(raw) > limits.max_message_bytes:
            return Unreadable(_too_large(str(len(raw)), limits))
        if is_compressed(raw):
            try:
                inflated = inflate(raw, INLINE_BYTES)
            except InvalidInput as error:
                return Unreadable(error)
            if inflated is None:
                size = stated_size(raw, limits.max_message_bytes)
                if size > limits.max_message_bytes:
                    return Unreadable(_too_large(str(size), limits))
                return Unread(large_compressed, raw, size)
            raw = inflated
        if len(raw) > INLINE_BYTES:
            return Unread(large, raw, len(raw))
        try:
            return message_type.FromString(raw)
        except DecodeError:
            return Unreadable(explain(message_type, raw, limits))

    return read


def _too_large(size: str, limits: RequestLimits) -> InvalidInput:
    reason = f"{size} bytes exceed --max-message-bytes {limits.max_message_bytes}; send several smaller requests"
    return InvalidInput("request", reason)


def read_in_pieces(message_type: type[MessageT], raw: bytes, limits: RequestLimits) -> MessageT | Unreadable:
    """What ``message_type.FromString`` gives, but other threads may run meanwhile; raises nothing."""
    message = message_type()
    try:
        for piece in _pieces(cast(Descriptor, message_type.DESCRIPTOR), raw, limits, 0, len(raw), ""):
            message.MergeFromString(piece)
    except InvalidInput as error:
        return Unreadable(error)
    except DecodeError:
        return Unreadable(explain(message_type, raw, limits))
    return message


def _pieces(
    descriptor: Descriptor, raw: bytes, limits: RequestLimits, begin: int, end: int, prefix: str
) -> Iterator[bytes]:
    """Messages that, merged one after the other, are the message of those bytes: to merge is to append."""
    start, seen = begin, Counter[int]()
    for field in fields_of(raw, begin, end):
        known = descriptor.fields_by_number.get(field.number)
        inside = known.message_type if known is not None and not known.is_repeated else None
        seen[field.number if known is not None and known.is_repeated else 0] += 1
        _check_field(known, field, seen, limits, prefix)
        if known is not None and inside is not None and field.end - field.body > PIECE_BYTES:
            if start < field.begin:
                yield raw[start : field.begin]
            # Parts of a message are merged, where those of a list would be appended.
            for inner in _pieces(inside, raw, limits, field.body, field.end, f"{prefix}{known.name}."):
                yield varint(field.number << 3 | LENGTH_DELIMITED) + varint(len(inner)) + inner
            start = field.end
        elif field.end - start > PIECE_BYTES:
            yield raw[start : field.end]
            start = field.end
    if start < end:
        yield raw[start:end]


def _check_field(
    known: FieldDescriptor | None, field: Field, seen: Counter[int], limits: RequestLimits, prefix: str
) -> None:
    """Refuses early what would be refused later, once it has cost more."""
    if seen[0] > _SINGLE_FIELDS:
        reason = f"more than {_SINGLE_FIELDS} fields besides its texts; build it from this server's .proto files"
        raise InvalidInput("request", reason)
    if known is None:
        return
    size, path = field.end - field.body, f"{prefix}{known.name}"
    if not known.is_repeated:
        if known.type == FieldDescriptor.TYPE_STRING and size > limits.max_text_bytes:
            raise InvalidInput(path, f"{size} bytes exceed --max-text-bytes {limits.max_text_bytes}; shorten it")
        return
    count = seen[field.number]
    if count > limits.max_items:
        raise InvalidInput(path, f"more than --max-items {limits.max_items}; send several smaller requests")
    if known.message_type is not None and size > max(PIECE_BYTES, _TEXT_FACTOR * limits.max_text_bytes):
        raise InvalidInput(
            f"{path}[{count - 1}]",
            f"{size} bytes of text or token ids exceed --max-text-bytes {limits.max_text_bytes}; shorten or split them",
        )


def explain(message_type: type[Message], raw: bytes, limits: RequestLimits) -> InvalidInput:
    """Why the bytes are no such message."""
    descriptor = cast(Descriptor, message_type.DESCRIPTOR)
    budget = iter(range(_SINGLE_FIELDS + 4 * limits.max_items))  # a pair is a field with two texts in it
    for path in _texts_that_are_not_utf8(descriptor, raw, 0, len(raw), "", budget):
        return InvalidInput(path, "not valid UTF-8; encode the text as UTF-8, replacing what cannot be encoded")
    return InvalidInput(
        "request", f"the bytes are not a {descriptor.full_name}; build the request from this server's .proto files"
    )


def _texts_that_are_not_utf8(
    descriptor: Descriptor, raw: bytes, begin: int, end: int, prefix: str, budget: Iterator[int]
) -> Iterator[str]:
    """Paths of string fields with broken text. Reads the wire format without a schema, which accepts any bytes."""
    seen = Counter[int]()
    try:
        for field, _ in zip(fields_of(raw, begin, end), budget, strict=False):
            known = descriptor.fields_by_number.get(field.number)
            if known is None or field.wire_type != LENGTH_DELIMITED:
                continue
            path = f"{prefix}{known.name}[{seen[field.number]}]" if known.is_repeated else f"{prefix}{known.name}"
            seen[field.number] += 1
            if known.message_type is not None:
                inner = (known.message_type, raw, field.body, field.end, f"{path}.", budget)
                yield from _texts_that_are_not_utf8(*inner)
            elif known.type == FieldDescriptor.TYPE_STRING and not _is_utf8(raw[field.body : field.end]):
                yield path
    except DecodeError:
        return


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
