"""What every serving process does with its event loop: which one, which signals, and how it leaves in a hurry."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_LOST = 1
"""Requests were lost: drain limit, fault of the engine, second signal."""
EXIT_STARTUP = 2
"""The server could not start."""


def catch_signals(stop: asyncio.Event, on_second: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT sets ``stop``; each later one calls ``on_second``. Needs a running loop."""
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


def leave(code: int) -> NoReturn:
    """Ends the process without waiting for any thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop, which is installed everywhere but on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
