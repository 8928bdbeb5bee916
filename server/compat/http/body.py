"""The body of a request: bounded while it arrives, and again while it is inflated, then read by its route."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from ...config import RequestLimits
from ...engine.off_loop import off_loop
from ...errors import Cancelled, InvalidInput, PairwireError
from ...rpc.wire import INLINE_BYTES, Unread, Unreadable
from .exchange import Exchange

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content coding -> what zlib calls it."""


class TooLarge(InvalidInput):
    """More bytes than a request may have."""


class UnknownCoding(InvalidInput):
    """The body is coded in a way that this server does not know."""


class BodyReader:
    """Reads bodies of one route; ``parse`` makes a request of the bytes and raises Pairwire's errors."""

    def __init__(self, parse: Callable[[bytes, Exchange], Any], limits: RequestLimits) -> None:
        self._parse = parse
        self._limits = limits

    async def __call__(self, exchange: Exchange) -> Any:
        """A request; ``Unread`` where it is large, for a thread to parse; ``Unreadable`` where it says nothing."""
        try:
            raw = await self._receive(exchange)
            raw = await self._inflated(raw, exchange)
            if len(raw) > INLINE_BYTES:
                return Unread(lambda raw: self._tried(raw, exchange), raw, len(raw))
            return self._parse(raw, exchange)
        except PairwireError as error:
            return Unreadable(error)

    def _tried(self, raw: bytes, exchange: Exchange) -> Any:
        try:
            return self._parse(raw, exchange)
        except PairwireError as error:
            return Unreadable(error)

    async def _receive(self, exchange: Exchange) -> bytes:
        """All of it, as it was sent."""
        length = exchange.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.max_message_bytes:
            raise self._too_large(f"{int(length)} bytes")
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise Cancelled("the caller has gone before the request had arrived")
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self._limits.max_message_bytes:
                raise self._too_large("more bytes")
            pieces.append(piece)
            if not message.get("more_body"):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _inflated(self, raw: bytes, exchange: Exchange) -> bytes:
        coding = exchange.header("content-encoding").strip().lower()
        if coding in ("", "identity"):
            return raw
        if coding not in _WINDOWS:
            raise UnknownCoding("Content-Encoding", f"{coding[:40]!r} is not known here; send gzip, deflate or nothing")
        return await off_loop(len(raw) > INLINE_BYTES >> 4, self._inflate, raw, _WINDOWS[coding], coding)

    def _inflate(self, raw: bytes, window: int, coding: str) -> bytes:
        most = self._limits.max_message_bytes
        inflater = zlib.decompressobj(window)
        try:
            inflated = inflater.decompress(raw, most + 1)
        except zlib.error:
            raise InvalidInput("request", f"the body is not {coding}, as Content-Encoding says") from None
        if len(inflated) > most:
            raise self._too_large(f"more bytes, once it is inflated ({coding}),")
        if not inflater.eof:
            raise InvalidInput("request", f"the body ({coding}) is cut off; send all of it")
        return inflated

    def _too_large(self, what: str) -> TooLarge:
        most = self._limits.max_message_bytes
        return TooLarge("request", f"{what} exceed --max-message-bytes {most}; send several smaller requests")
