"""Work beside the event loop, and several pieces of work on it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def off_loop(large: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(...)``: at once, or where it is ``large`` on a thread, so that other calls are served meanwhile."""
    return await asyncio.to_thread(work, *args, **kwargs) if large else work(*args, **kwargs)


async def at_once(*work: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all, in order. The first error ends all, and so does a cancellation, which goes before any error.

    No TaskGroup: before Python 3.13, one that fails leaves behind a cancellation that nobody asked for, which a
    timeout around it then takes for one of its caller.
    """
    current = asyncio.current_task()
    assert current is not None  # this is a coroutine
    before, tasks = current.cancelling(), [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if current.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
