"""One engine a process for each package, however many objects use it; the last one closes it."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from pairwire.server.engine import EngineConfig

from .answering import IN_FLIGHT
from .engine_thread import EngineThread

_UNBOUNDED_S = 1e9
_QUEUE_TOKENS = 1 << 30


@dataclass(eq=False, slots=True)
class SharedEngine:
    """An engine and the bound on what it is given at once."""

    thread: EngineThread
    in_flight: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))
    users: int = 0


_lock = threading.Lock()
_engines: dict[tuple[int, Path, EngineConfig], SharedEngine] = {}


def batch_config(**settings: object) -> EngineConfig:
    """An engine's settings for work in batches: nothing is refused for the queue, which is bounded by its callers."""
    bounds = {"queue_s": _UNBOUNDED_S, "low_queue_s": _UNBOUNDED_S, "queue_tokens": _QUEUE_TOKENS}
    return EngineConfig(**{**bounds, **settings})  # type: ignore[arg-type]


def acquire(package: Path, config: EngineConfig) -> SharedEngine:
    """The engine of this process for a package, opened by whoever comes first. Give it back with `release`.

    Raises:
        pairwire.server.errors.StartupError: it cannot be loaded; the sentence says why.
    """
    key = _key(package, config)
    with _lock:
        shared = _engines.get(key)
        if shared is None:
            shared = _engines[key] = SharedEngine(EngineThread(package, config=config))
        shared.users += 1
        return shared


def release(package: Path, config: EngineConfig) -> None:
    """Closes it where nobody else uses it."""
    with _lock:
        shared = _engines.get(_key(package, config))
        if shared is None:
            return
        shared.users -= 1
        if shared.users == 0:
            del _engines[_key(package, config)]
            shared.thread.close()


def _key(package: Path, config: EngineConfig) -> tuple[int, Path, EngineConfig]:
    return os.getpid(), package.resolve(), config


@atexit.register
def _close_all() -> None:
    """Engines of objects that nobody has closed: their threads must not outlive the interpreter."""
    with _lock:
        for (process, _, _), shared in list(_engines.items()):
            if process == os.getpid():
                shared.thread.close()
        _engines.clear()
