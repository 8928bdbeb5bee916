"""Which files besides itself an ONNX graph reads: a look through the message without the library that knows it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

_Data: TypeAlias = "mmap.mmap | bytes"

_TENSOR, _ENTRY = "tensor", "entry"
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
"""Message of onnx.proto -> field number -> message in it, as far as they lead to tensors."""
_LENGTH_DELIMITED, _KEY, _VALUE = 2, 1, 2


class NotOnnx(ValueError):
    """The bytes are no ONNX graph."""


def external_files(graph: Path) -> frozenset[str]:
    """The locations of external data that a graph names, as they stand there.

    Raises:
        NotOnnx: it cannot be read as one.
        OSError: it cannot be read.
    """
    if not graph.stat().st_size:
        raise NotOnnx("it is empty")
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(_locations(data, "model", 0, len(data)))


def _locations(data: _Data, message: str, begin: int, end: int) -> Iterator[str]:
    waiting = [(message, begin, end)]
    while waiting:  # graphs lie in graphs as deep as somebody likes
        message, begin, end = waiting.pop()
        if message == _ENTRY:
            pair = {number: data[start:stop] for number, start, stop in _fields(data, begin, end)}
            if pair.get(_KEY) == b"location":
                yield pair.get(_VALUE, b"").decode("utf-8", errors="replace")
            continue
        inside = _FIELDS[message]
        waiting += [(inside[at], start, stop) for at, start, stop in _fields(data, begin, end) if at in inside]


def _fields(data: _Data, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field that has a length."""
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == _LENGTH_DELIMITED:
            size, at = _varint(data, at, end)
            yield tag >> 3, at, at + size
            at += size
        else:
            raise NotOnnx(f"it has a field of kind {kind}")
        if at > end:
            raise NotOnnx("it is cut off")


def _varint(data: _Data, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise NotOnnx("it is cut off")
