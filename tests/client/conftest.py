"""A fake server, and both clients behind one face: every test that uses them runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from pairwire.client import AsyncClient, Client, ClientOptions
from tests.client.fake_server import FakeServer


class EitherClient:
    """Awaits what the asyncio client returns; calls the blocking one in a thread."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    async def call(self, method: str, *args: Any, **named: Any) -> Any:
        bound = getattr(self.client, method)
        if isinstance(self.client, AsyncClient):
            return await bound(*args, **named)
        return await asyncio.to_thread(bound, *args, **named)

    async def collect(self, method: str, *args: Any, **named: Any) -> list[Any]:
        """Everything that a stream yields."""
        stream = getattr(self.client, method)(*args, **named)
        if isinstance(self.client, AsyncClient):
            return [found async for found in stream]
        return await asyncio.to_thread(list, stream)

    async def first_of(self, method: str, *args: Any, **named: Any) -> Any:
        """The first thing that a stream yields, after which it is closed."""
        stream = getattr(self.client, method)(*args, **named)
        if isinstance(self.client, AsyncClient):
            found = await anext(stream)
            await stream.aclose()
            return found
        found = await asyncio.to_thread(next, stream)
        stream.close()
        return found


Connect = Callable[..., Awaitable[EitherClient]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    found = FakeServer()
    yield found
    found.close()


@pytest.fixture(params=["sync", "aio"])
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Opens clients of either kind and closes them: give it addresses and fields of ClientOptions."""
    opened: list[EitherClient] = []

    async def connect(addresses: str | list[str], **options: Any) -> EitherClient:
        kind = Client if request.param == "sync" else AsyncClient
        opened.append(EitherClient(kind(addresses, options=ClientOptions(**options))))
        return opened[-1]

    yield connect
    for either in opened:
        await either.call("close")


@pytest.fixture
async def client(connect: Connect, server: FakeServer) -> EitherClient:
    """A client of the fake server that splits after 4 inputs and keeps 3 requests under way."""
    from pairwire.client import SplitLimits

    return await connect(server.address, split=SplitLimits(max_items=4, in_flight=3))
