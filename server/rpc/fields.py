"""protobuf's wire format, field by field and without a schema: what it takes to divide and to join messages.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

LENGTH_DELIMITED = 2
"""Wire type of texts, bytes and messages."""
_FIXED = {1: 8, 5: 4}
_MOST_VARINT_BYTES = 10


class Field(NamedTuple):
    """Where a field of a message stands in its bytes."""

    number: int
    wire_type: int
    begin: int
    """Of its tag."""
    body: int
    """Where its content begins, after tag and length."""
    end: int


def fields_of(raw: bytes, begin: int, end: int) -> Iterator[Field]:
    """The fields of the message that is ``raw[begin:end]``, in order.

    Raises:
        DecodeError: it is no message, or has a group, which no proto3 message has.
    """
    at = begin
    while at < end:
        start = at
        tag, at = _read_varint(raw, at, end)
        number, wire_type = tag >> 3, tag & 7
        body = at
        if wire_type == LENGTH_DELIMITED:
            size, body = _read_varint(raw, at, end)
            at = body + size
        elif wire_type == 0:
            _, at = _read_varint(raw, at, end)
        elif wire_type in _FIXED:
            at += _FIXED[wire_type]
        else:
            raise DecodeError(f"wire type {wire_type} at byte {start}")
        if at > end or not number:
            raise DecodeError(f"field {number} at byte {start}")
        yield Field(number, wire_type, start, body, at)


def varint(value: int) -> bytes:
    """A number from 0 as protobuf writes it, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def with_block(message: Message, number: int, block: Sequence[bytes]) -> list[bytes]:
    """The bytes of a message whose field ``number`` is ``block``, in pieces to be joined.

    A field of many megabytes is copied once like this, when all is joined, which lets other threads run; protobuf
    itself copies it three times and does not. ``block`` is bytes, or a message, in pieces.
    """
    return [varint(number << 3 | LENGTH_DELIMITED), varint(sum(map(len, block))), *block, message.SerializeToString()]


def _read_varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    if at < end and raw[at] < 128:  # nearly all are one byte
        return raw[at], at + 1
    value = 0
    for index, byte in enumerate(raw[at : min(end, at + _MOST_VARINT_BYTES)]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise DecodeError(f"no number at byte {at}")
