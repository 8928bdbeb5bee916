"""Work that is handed out ahead and given back in the order of its input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(submit: Callable[[T], Future[R]], items: Iterable[T], in_flight: int) -> Iterator[R]:
    """Results in input order, at most ``in_flight`` at once; what waits when reading stops is cancelled."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == in_flight:
                yield waiting.popleft().result()
            waiting.append(submit(item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
