"""What every serving process does with its event loop: which one, which signals, and how it leaves in a hurry."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

EXIT_LOST = 1
"""Requests were lost: drain limit, fault of the engine, second signal."""
EXIT_STARTUP = 2
"""The server could not start."""
EXIT_HUNG = 3
"""Something in the process hung and could not be ended: start it again."""

_FLUSHING_S = 1.0


def catch_signals(stop: asyncio.Event, on_second: Callable[[], None], on_hangup: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT sets ``stop``; each later one calls ``on_second``. Needs a running loop.

    SIGHUP calls ``on_hangup``. A terminal that is closed sends it too; it ends nothing.
    """
    first = True

    def on_signal() -> None:
        nonlocal first
        if not first:
            on_second()
        first = False
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)


def leave(code: int) -> NoReturn:
    """Ends the process without waiting for any thread, and not for long for whoever reads its output."""
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_FLUSHING_S)
    os._exit(code)


def leave_anyway(code: int, after_s: float) -> None:
    """Ends the process after that time, whatever hangs in it by then: event loop, log, threads. Returns at once."""

    def end() -> None:
        threading.Event().wait(after_s)
        os._exit(code)

    threading.Thread(target=end, name="pairwire-last-words", daemon=True).start()


def write_stacks() -> None:
    """Has a thread write the stacks of all threads to stderr; it may take as long as it likes."""
    threading.Thread(target=_write_stacks, daemon=True).start()


def _write_stacks() -> None:
    with contextlib.suppress(OSError, ValueError):  # stderr is closed, or is no file
        faulthandler.dump_traceback(all_threads=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, its disk is full, or it is closed
            stream.flush()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop, which is installed everywhere but on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
