"""The engine on an event loop of its own thread, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from pairwire.server.engine import Engine, EngineConfig

T = TypeVar("T")


class EngineThread:
    """An engine whose coroutines can be called from any thread."""

    def __init__(self, *directories: Path, config: EngineConfig | None = None) -> None:
        """Loads and warms packages.

        Raises:
            pairwire.server.errors.StartupError: one cannot be loaded; the sentence says why.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pairwire-engine", daemon=True)
        self._thread.start()
        try:
            self.engine = self.submit(Engine.open(*directories, config=config)).result()
        except BaseException:
            self._stop()
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine of the engine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Drops what waits and frees the model."""
        try:
            self.submit(self.engine.close()).result()
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
