"""What counts as one request, and what a drain waits for."""

from __future__ import annotations

import asyncio

import pytest

from pairwire.server.engine.open_requests import OpenRequests
from pairwire.server.errors import NotReady


async def test_requests_are_counted_until_they_end() -> None:
    requests = OpenRequests()
    with requests.accept():
        assert requests.count == 1
    with pytest.raises(ValueError, match="lost"), requests.accept():
        raise ValueError("lost")
    assert requests.count == 0
    await requests.wait_idle()


async def test_a_drain_refuses_new_requests_and_keeps_those_that_are_open() -> None:
    requests = OpenRequests()
    with requests.accept():
        requests.draining = True
        with pytest.raises(NotReady, match="draining"), requests.accept():
            pass
        assert requests.count == 1
    assert requests.count == 0


async def test_a_drain_waits_for_the_last() -> None:
    requests = OpenRequests()
    leave = asyncio.Event()

    async def stay() -> None:
        with requests.accept():
            await leave.wait()

    tasks = [asyncio.create_task(stay()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(requests.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    leave.set()
    await asyncio.gather(*tasks)
    await waiting


async def test_a_model_is_unused_when_the_last_request_that_has_it_is_answered() -> None:
    requests = OpenRequests()
    await requests.wait_unused("a")
    with requests.accept("a", "b"):
        with requests.accept("a"), requests.accept("c"):
            waiting = asyncio.create_task(requests.wait_unused("a"))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        await requests.wait_unused("c")
    await waiting
    await requests.wait_unused("b")
