"""What runs beside the event loop, and what runs on it at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from pairwire.server.engine.off_loop import at_once, off_loop


async def test_what_is_large_runs_on_a_thread_and_what_is_not_runs_here() -> None:
    assert await off_loop(False, threading.get_ident) == threading.get_ident()
    assert await off_loop(True, threading.get_ident) != threading.get_ident()
    for large in (False, True):
        assert await off_loop(large, int, "11", base=2) == 3


async def test_results_come_in_order() -> None:
    turn = asyncio.Event()

    async def last() -> str:
        await turn.wait()
        return "first given"

    async def first() -> str:
        turn.set()
        return "second given"

    assert await at_once(last(), first()) == ["first given", "second given"]


class Work:
    """Waits until it is told how to end; knows whether it was stopped."""

    def __init__(self) -> None:
        self.fail, self.stopped = asyncio.Event(), False

    async def run(self) -> None:
        try:
            await self.fail.wait()
        except asyncio.CancelledError:
            self.stopped = True
            raise
        raise ValueError("failed")


async def started(*work: Work) -> asyncio.Task[list[None]]:
    task = asyncio.create_task(at_once(*(each.run() for each in work)))
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_the_first_error_ends_the_others_and_leaves_no_cancellation_behind() -> None:
    works = [Work(), Work()]
    works[1].fail.set()
    with pytest.raises(ValueError, match="failed"):
        await at_once(*(work.run() for work in works))
    assert works[0].stopped
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize(
    "when",
    [
        lambda task, work: task.cancel(),
        lambda task, work: (work.fail.set(), task.cancel()),
        lambda task, work: (task.cancel(), work.fail.set()),
    ],
    ids=["alone", "just after an error", "just before an error"],
)
async def test_a_cancellation_goes_before_any_error(
    when: Callable[[asyncio.Task[list[None]], Work], object],
) -> None:
    works = [Work(), Work()]
    task = await started(*works)
    when(task, works[0])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert works[1].stopped
