"""One HTTP request on its way: to traffic, metrics and fair shares it is a call like any other.

It has those methods of gRPC's ServicerContext that they use, so there is one of each of them for both.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from ...clock import Clock
from ...errors import DeadlineExceeded, InvalidInput

DEADLINE_HEADER = "x-request-timeout"
"""How long the caller waits: seconds, or with a unit: ``0.5``, ``2s``, ``250ms``."""

ABORT = "pairwire.abort"
"""In a request's scope: what ends its connection at once."""

_DURATION = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(ms|s)?\s*", re.ASCII)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Reader(Protocol):
    """Reads the body of a request."""

    async def __call__(self, exchange: Exchange) -> object:
        """What it says, or a value that says why it cannot be had."""
        ...


class Exchange:
    """A request, from its head to the end of its answer. Belongs to one event loop."""

    def __init__(self, scope: Scope, receive: Receive, clock: Clock, reader: Reader) -> None:
        self.scope = scope
        self.receive = receive
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        """By lower-case name; the last of several."""
        self._clock = clock
        self._reader = reader
        self._started = clock.monotonic()
        self._timeout_s: float | None = None
        self._callbacks: list[Callable[[Any], object]] = []

    @property
    def method(self) -> str:
        """In upper case."""
        method: str = self.scope["method"]
        return method

    def header(self, name: str) -> str:
        """The value of a header; empty where there is none."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def elapsed_s(self) -> float:
        """Since it began, in seconds."""
        return self._clock.monotonic() - self._started

    # What follows is the part of ServicerContext.

    def peer(self) -> str:
        """Where it comes from, as gRPC writes it: ``ipv4:10.0.0.7:41234``."""
        client = self.scope.get("client")
        if not client:
            return "unix:"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers."""
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.scope["headers"])

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, below 0 after it; None where there is none."""
        if self._timeout_s is None:
            return None
        return self._started + self._timeout_s - self._clock.monotonic()

    async def read(self) -> object:
        """The body, as the reader reads it.

        Raises:
            InvalidInput: the deadline is no duration.
            DeadlineExceeded: the deadline passed meanwhile.
        """
        self._read_deadline()
        left = self.time_remaining()
        if left is None:
            return await self._reader(self)
        try:
            async with asyncio.timeout(left):
                return await self._reader(self)
        except TimeoutError:
            if (left := self.time_remaining()) is None or left > 0:
                raise  # of somebody around this
            raise DeadlineExceeded(f"the request had not arrived within {self._timeout_s:.3f} s; allow more") from None

    def _read_deadline(self) -> None:
        """Has the time count that the caller gives.

        Raises:
            InvalidInput: the header is no duration.
        """
        if DEADLINE_HEADER.encode() in self.headers:
            self._timeout_s = parse_duration(self.header(DEADLINE_HEADER))

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Calls it when the exchange has ended."""
        self._callbacks.append(callback)

    def end(self) -> None:
        """The answer has been sent, or nobody waits for it any more."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


def parse_duration(text: str) -> float:
    """Seconds.

    Raises:
        InvalidInput: it is no duration, or none that leaves time.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else math.nan
    if not seconds > 0:
        raise InvalidInput(
            "X-Request-Timeout", f"{text[:40]!r} is no time to wait; give seconds above 0, e.g. 0.5 or 500ms"
        )
    return seconds
