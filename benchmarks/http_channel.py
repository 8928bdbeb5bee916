"""The HTTP side of the load test: calls over keep-alive connections, as many as are in flight, and nothing slower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class HttpFailed(Exception):
    """A call was answered with another status than 200, or not at all; ``code`` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class HttpChannel:
    """Calls of one path of one server. Belongs to one event loop."""

    def __init__(self, address: str, path: str, response: Callable[[bytes], Any]) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: "
        self._response = response
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self, request: bytes, *, timeout: float, metadata: object = ()) -> Any:  # noqa: ASYNC109
        """The answer. Raises HttpFailed."""
        try:
            async with asyncio.timeout(timeout):
                return await self._call(request)
        except TimeoutError:
            raise HttpFailed("DEADLINE_EXCEEDED") from None
        except (OSError, asyncio.IncompleteReadError):
            raise HttpFailed("UNAVAILABLE") from None

    async def _call(self, request: bytes) -> Any:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(f"{self._head}{len(request)}\r\n\r\n".encode() + request)
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(line for line in headers if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        if b"connection: close" in headers:
            writer.close()
        else:
            self._idle.append((reader, writer))
        if status.split()[1] != b"200":
            raise HttpFailed(f"HTTP {status.split()[1].decode()}")
        return self._response(body)

    def close(self) -> None:
        """Closes what is open."""
        for _, writer in self._idle:
            writer.close()
