"""An HTTP/2 client of frames, for what no gRPC client does: messages that stall, and lies about their length."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
_FIRST_WINDOW = 65_535


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack("!I", len(body))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + body


def message(body: bytes, *, claimed: int | None = None, compressed: bool = False) -> bytes:
    """As gRPC puts it into frames; ``claimed`` is a length that is not its own."""
    return bytes([compressed]) + struct.pack("!I", len(body) if claimed is None else claimed) + body


class RawConnection:
    """One connection; answers are the raw trailers of each stream, in which gRPC's words can be found."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._next = 1
        self._sent = 0
        self.answers: dict[int, bytes] = {}

    @classmethod
    async def open(cls, port: int) -> RawConnection:
        """Connects."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        return cls(reader, writer)

    def call(self, path: str, data: bytes, *, end: bool = False, headers: Sequence[tuple[str, str]] = ()) -> int:
        """Begins a call and sends the beginning of its message, less than a window; its stream."""
        self._sent += len(data)
        assert self._sent <= _FIRST_WINDOW, "flow control is not done here"
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        fields += [("content-type", "application/grpc"), ("te", "trailers"), *headers]
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
        stream, self._next = self._next, self._next + 2
        self._writer.write(frame(HEADERS, END_HEADERS | (END_STREAM if end and not data else 0), stream, block))
        for at in range(0, len(data), 16_384):
            part = data[at : at + 16_384]
            last = END_STREAM if end and at + len(part) == len(data) else 0
            self._writer.write(frame(DATA, last, stream, part))
        return stream

    async def answer(self, stream: int) -> bytes:
        """The trailers that end a stream."""
        while stream not in self.answers:
            head = await self._reader.readexactly(9)
            body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, flags, at = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & ACK:
                self._writer.write(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._writer.write(frame(PING, ACK, 0, body))
            elif kind == HEADERS and flags & END_STREAM:
                self.answers[at] = body
        return self.answers[stream]

    async def close(self) -> None:
        """Closes it."""
        self._writer.close()
        await self._writer.wait_closed()


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
