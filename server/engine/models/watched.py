"""A runtime whose runs are watched, for as long as a model is loaded: nobody knows yet what they should take."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

from ...runtime.base import Float32Array, Runtime, RuntimeInfo, TokenBatch
from ..watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class WatchedRuntime:
    """Does what the runtime does."""

    runtime: Runtime
    watchdog: Watchdog

    @property
    def info(self) -> RuntimeInfo:
        """What runs the graph."""
        return self.runtime.info

    def run(self, batch: TokenBatch) -> Float32Array:
        """[rows, outputs] float32.

        Raises:
            RunHung: it took longer than any run may.
            Whatever the runtime raises.
        """
        return self.watchdog.run(
            f"a run on {batch.rows} x {batch.length} while the model is loaded",
            lambda: self.runtime.run(batch),
            functools.partial(self.runtime.interrupt, threading.get_ident()),
        )

    def interrupt(self, thread: int) -> None:
        """As the runtime's."""
        self.runtime.interrupt(thread)

    def close(self) -> None:
        """As the runtime's."""
        self.runtime.close()


def watched(runtime: Runtime, watchdog: Watchdog | None) -> Runtime:
    """The runtime, watched where somebody watches."""
    return runtime if watchdog is None else WatchedRuntime(runtime, watchdog)
