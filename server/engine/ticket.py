"""What the engine attaches to a request in the scheduler: its text, where its results go, and who waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import PairwireError
from ..runtime.base import Float32Array
from .heads import Activation
from .pool import Request
from .text import EncodedRows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class Ticket:
    """One request's share of the engine."""

    encoded: EncodedRows
    activation: Activation
    output: Float32Array
    """[rows, outputs] float32; workers write rows into it, its owner reads it once ``done`` is set."""
    done: asyncio.Future[None]


def settle(requests: Sequence[Request[Ticket]], error: Callable[[], PairwireError] | None = None) -> None:
    """Tells those who wait that their requests are done or have failed: one wake-up of their loop. From any thread.

    ``error`` makes an exception for each, because one that is raised in several tasks gathers all their tracebacks.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for request in requests:
        done = request.payload.done
        by_loop.setdefault(done.get_loop(), []).append(done)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures, error)
        except RuntimeError:  # the loop was closed under us: nobody is left to be told
            logger.warning("%d requests ended after their event loop was closed", len(futures))


def _resolve(futures: Sequence[asyncio.Future[None]], error: Callable[[], PairwireError] | None) -> None:
    for future in futures:
        if future.done():  # cancelled between the worker's wake-up and now
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error())
