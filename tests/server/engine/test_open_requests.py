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


async def test_what_a_request_calls_in_turn_is_part_of_it() -> None:
    requests = OpenRequests()

    async def part() -> int:
        with requests.accept():
            return requests.count

    with requests.accept():
        assert await part() == 1
        requests.draining = True
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part()) for _ in range(2)]
        assert [task.result() for task in tasks] == [1, 1]
        assert requests.count == 1
    with pytest.raises(NotReady, match="draining"):
        await part()
    assert requests.count == 0


async def test_a_request_of_one_engine_is_none_of_another() -> None:
    first, second = OpenRequests(), OpenRequests()
    second.draining = True
    with first.accept(), pytest.raises(NotReady), second.accept():
        pass


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
