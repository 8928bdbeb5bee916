"""The life of one serving process, from its start to its exit code; alone or as one of several on a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from .errors import PairwireError, StartupError
from .eventloop import EXIT_HUNG, EXIT_LOST, leave, leave_anyway, write_stacks
from .freed_memory import keep_what_is_loaded
from .reasons import reason_of

if TYPE_CHECKING:
    from .app import Application

logger = logging.getLogger(__name__)

_SWITCH_S = 0.0005
"""A thread that runs Python lets others run after so long where they want to. By default it is 5 ms: a call comes by
the event loop some five times, and would wait for threads that tokenise each time."""

LAST_WORDS_S = 4.0
"""What a stop may take beyond the limits that are set for it, before the process ends wherever it is."""


def on_fault(fault: BaseException) -> None:
    """What a process does when its engine has died, from whatever thread found out: it ends soon, come what may."""
    leave_anyway(exit_code(fault), LAST_WORDS_S)
    if exit_code(fault) == EXIT_HUNG:
        write_stacks()


def exit_code(fault: BaseException | None) -> int:
    """What tells why the engine died."""
    from .engine.watchdog import RunStuck

    return EXIT_HUNG if isinstance(fault, RunStuck) else EXIT_LOST


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


def hangup_of(applications: Sequence[Application]) -> Callable[[], None]:
    """What SIGHUP does: keys and certificates are read again. What is not built yet reads them when it is."""
    tasks: set[asyncio.Task[None]] = set()

    def on_hangup() -> None:
        logger.info("SIGHUP: API keys and certificates are read again, where there are any")
        for application in applications:
            task = asyncio.create_task(application.guard.reload())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    return on_hangup


async def serve_until(
    stop: asyncio.Event,
    application: Application,
    *,
    start: Callable[[], Awaitable[None]],
    on_ready: Callable[[], None],
    on_end: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Starts, serves until ``stop`` is set or the engine dies, drains, and ends the process: no thread is waited for.

    ``on_end`` is called when the last request has been answered.

    Raises:
        StartupError: from ``start``; the application is stopped.
    """
    sys.setswitchinterval(_SWITCH_S)
    stopped = asyncio.create_task(stop.wait())
    failed = asyncio.create_task(application.failed.wait())
    starting = asyncio.ensure_future(start())
    await asyncio.wait((starting, stopped, failed), return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        await _end_failed(application, on_end)
    if not starting.done():
        leave(0)  # nothing was accepted yet, and a thread that loads cannot be interrupted
    try:
        with explained_start():
            await starting
    except StartupError:
        with contextlib.suppress(Exception):  # why it did not start is what a person must know
            await application.abort()
        raise
    keep_what_is_loaded()
    on_ready()
    await asyncio.wait((stopped, failed), return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        await _end_failed(application, on_end)
    limits = application.config.shutdown
    leave_anyway(EXIT_LOST, limits.drain_delay_s + limits.drain_timeout_s + LAST_WORDS_S)
    in_time = await application.drain()
    on_end()
    leave(0 if in_time else EXIT_LOST)


async def _end_failed(application: Application, on_end: Callable[[], None]) -> NoReturn:
    await application.abort()
    on_end()
    code = exit_code(application.fault)
    logger.critical("the process ends with exit code %d: %s", code, application.fault)
    leave(code)
