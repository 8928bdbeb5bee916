"""Work off the event loop, and several pieces of work on it at once."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from ..errors import EngineFault

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def contained(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(...)``, of which only ordinary exceptions get out.

    Libraries in other languages raise what is none: pyo3's PanicException where Rust code panics. Event loops and
    thread pools do not expect that, and whoever waits for it might wait for ever.

    Raises:
        EngineFault: in place of what is no ordinary exception.
        Whatever else ``work`` raises.
    """
    try:
        return work(*args, **kwargs)
    except BaseException as error:
        ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration)  # no future can hold that
        asked = isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
        if ordinary or asked:
            raise
        # The message stays out of it, for it may quote the text.
        name = getattr(work, "__qualname__", "work")
        logger.error("%s ended with %s, which is no exception", name, type(error).__name__)
        raise EngineFault(f"a library failed on this request ({type(error).__name__})") from error


async def off_loop(large: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(...)``: at once, or where it is ``large`` on a thread, so that other calls are served meanwhile."""
    job = functools.update_wrapper(functools.partial(contained, work, *args, **kwargs), work)
    return await asyncio.to_thread(job) if large else job()


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
