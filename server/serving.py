"""The life of one serving process, from its start to its exit code; alone or as one of several on a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from .errors import PairwireError, StartupError
from .eventloop import EXIT_LOST, leave
from .reasons import reason_of

if TYPE_CHECKING:
    from .app import Application

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def explained_start() -> Iterator[None]:
    """Turns whatever else keeps a server from starting into a `StartupError`."""
    try:
        yield
    except StartupError:
        raise
    except Exception as error:
        logger.debug("the server cannot start", exc_info=error)
        kind = "" if isinstance(error, PairwireError | OSError) else f" ({type(error).__name__})"
        raise StartupError(f"the server cannot start: {reason_of(error)}{kind}") from error


async def serve_until(
    stop: asyncio.Event,
    application: Application,
    *,
    start: Callable[[], Awaitable[None]],
    on_ready: Callable[[], None],
    on_end: Callable[[], None] = lambda: None,
) -> int:
    """Starts, serves until ``stop`` is set or the engine dies, drains; returns the exit code, or ends the process.

    ``on_end`` is called when the last request has been answered.

    Raises:
        StartupError: from ``start``; the application is stopped.
    """
    stopped = asyncio.create_task(stop.wait())
    starting = asyncio.ensure_future(start())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        leave(0)  # nothing was accepted yet, and a thread that loads cannot be interrupted
    try:
        with explained_start():
            await starting
    except StartupError:
        with contextlib.suppress(Exception):  # why it did not start is what a person must know
            await application.abort()
        raise
    on_ready()
    failed = asyncio.create_task(application.failed.wait())
    await asyncio.wait((stopped, failed), return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        await application.abort()
        on_end()
        leave(EXIT_LOST)
    failed.cancel()
    in_time = await application.drain()
    on_end()
    if not in_time:
        leave(EXIT_LOST)
    return 0
