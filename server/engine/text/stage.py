"""Where calls are tokenised: short ones on the event loop, long ones on threads of their own, within a bound."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ...errors import NotReady, Overloaded
from ..off_loop import contained
from .encoder import EncodedRows, join
from .inputs import Texts

P = ParamSpec("P")
T = TypeVar("T")

INLINE_CHARACTERS = 512
"""Texts up to this many characters together are tokenised on the event loop. They hold it up for some 0.2 ms; a hop to
a thread and back would cost some 0.06 ms more (one Zen 4 core)."""

_CHARACTERS_PER_TOKEN = 8
"""More than any language has on average: text within the bound is refused by its tokens, never by its characters."""

_SLICE_CHARACTERS = 32_768
"""What a thread has to tokenise at most before others have their turn, but for a single text: some 12 ms."""
_CALLERS_SHARE = 0.75
"""Part of the text that may wait that one caller may hold."""
_CHARACTERS_PER_S = 2_500_000
"""Of one thread, for an estimate."""

_SPLIT_CHARACTERS = 8192
"""What a thread should have to tokenise at least: some 3 ms, fifty times the hop there and back."""
_SPLIT_IDLE_CHARACTERS = 1024
"""The same where nothing else waits to be tokenised: some 0.4 ms, six times the hop."""
_FEW_THREADS = 2
"""Up to this many threads, slices grow: more threads tokenise all slices at once, so that they should be equal."""
_STREAM_ROWS = 64
"""A call of this many rows is streamed: below, its first batch would wait for little."""
_LEAST_ROWS, _FIRST_ROWS, _FIRST_CHARACTERS = 2, 32, 4096
"""The first slice: enough for the workers to begin with; few enough to be tokenised in a millisecond or two."""
_GROWTH = 4
"""Of each slice over the one before, with few threads: a row takes some twenty times longer to compute than to
tokenise."""


class TextStage:
    """The tokenising threads and what waits for them. Belongs to one event loop."""

    def __init__(self, threads: int, *, queue_tokens: int, wait_s: Callable[[], float]) -> None:
        """``wait_s`` estimates when a refused caller should come back."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pairwire-text")
        self._threads = threads
        self._limit = _CHARACTERS_PER_TOKEN * queue_tokens
        self._wait_s = wait_s
        self._characters = 0
        self._held: dict[str, int] = {}  # characters by caller
        self._closed = False

    def may_stream(self, texts: Texts) -> bool:
        """Whether it pays to compute the first rows while the others are still being tokenised, and cannot go wrong."""
        large = texts.rows >= _STREAM_ROWS or (texts.rows > _LEAST_ROWS and texts.characters >= _SPLIT_CHARACTERS)
        return large and texts.may_be_split

    async def encode(
        self, texts: Texts, *, stream: bool = False, caller: str = ""
    ) -> AsyncGenerator[EncodedRows, None]:
        """All rows in order: in one piece, or, to ``stream`` them, in several. Close it when you stop reading early.

        Streamed, a few rows come first, then more and more; or, where threads share them, all pieces are about equal.
        Large texts are read slice by slice, and between two of them others have their turn.

        Raises:
            InvalidInput: as the encoder; where rows are read in slices, of the texts themselves before the first.
            Overloaded: too much text waits already.
            NotReady: the stage was closed before all was read.
        """
        characters = texts.characters
        if characters <= INLINE_CHARACTERS:
            yield contained(texts.encode, 0, texts.rows)
            return
        self._check_backlog(characters, caller)
        least = _SPLIT_CHARACTERS if self._characters else _SPLIT_IDLE_CHARACTERS
        slices = deque(self._slices(texts, characters, stream, least))
        if len(slices) > 1:
            contained(texts.check)
        self._hold(caller, characters)
        waiting: deque[asyncio.Future[EncodedRows]] = deque()
        pieces: list[EncodedRows] = []
        try:
            self._submit(texts, slices, waiting)
            while waiting:
                rows = await waiting[0]
                waiting.popleft()
                self._submit(texts, slices, waiting)
                if stream:
                    yield rows
                else:
                    pieces.append(rows)
            if not stream:
                yield join(pieces)
        finally:
            self._hold(caller, -characters)
            for each in waiting:
                each.cancel()

    async def run(self, work: Callable[[], T], characters: int, caller: str) -> T:
        """``work()``, which reads this many characters: at once, or on a thread where they are many.

        Raises:
            Overloaded: too much text waits already.
            Whatever ``work`` raises.
        """
        if characters <= INLINE_CHARACTERS:
            return contained(work)
        self._check_backlog(characters, caller)
        self._hold(caller, characters)
        try:
            return await self._on_thread(work)
        finally:
            self._hold(caller, -characters)

    def close(self) -> None:
        """Takes no more; does not wait."""
        self._closed = True
        self._pool.shutdown(wait=False)

    def _slices(self, texts: Texts, characters: int, stream: bool, least: int) -> list[tuple[int, int]]:
        """Rows from where to where are tokenised by one thread at a time, at ``least`` this many characters each."""
        rows = texts.rows
        sizes: list[int] = []
        if stream and self._threads <= _FEW_THREADS:
            size = max(_LEAST_ROWS, min(_FIRST_ROWS, rows * _FIRST_CHARACTERS // characters))
            while sum(sizes) < rows:
                sizes.append(size)
                size *= _GROWTH
        else:
            count = min(self._threads, rows, characters // least)
            sizes = [-(-rows // max(1, count))] * max(1, count)
        ends = [min(rows, end) for end in itertools.accumulate(sizes)]
        coarse = [(begin, end) for begin, end in itertools.pairwise([0, *ends]) if begin < end]
        if characters <= _SLICE_CHARACTERS:
            return coarse
        each = texts.sizes()
        return [part for begin, end in coarse for part in _parts(each, begin, end)]

    def _submit(
        self,
        texts: Texts,
        slices: deque[tuple[int, int]],
        waiting: deque[asyncio.Future[EncodedRows]],
    ) -> None:
        """Gives the threads the next slices: never so many that what comes meanwhile would wait for all of them."""
        while slices and len(waiting) <= self._threads:
            waiting.append(self._on_thread(texts.encode, *slices.popleft()))

    def _on_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        if self._closed:  # a drain has reached its limit
            raise NotReady.closed()
        call = functools.partial(contained, work, *args, **kwargs)
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _hold(self, caller: str, characters: int) -> None:
        self._characters += characters
        held = self._held.pop(caller, 0) + characters
        if held:
            self._held[caller] = held

    def _check_backlog(self, characters: int, caller: str) -> None:
        """The queue is bounded in tokens; before they are counted text is bounded too, of one caller and of all."""
        held, most = self._held.get(caller, 0), int(_CALLERS_SHARE * self._limit)
        if held and held + characters > most:
            what = f"{held} characters of yours wait to be tokenised, at most {most} may"
        elif self._characters and self._characters + characters > self._limit:
            what = f"{self._characters} characters wait to be tokenised, at most {self._limit} may"
        else:
            return
        retry_after_s = self._wait_s() + self._characters / _CHARACTERS_PER_S / self._threads
        raise Overloaded(f"{what}; try again in {retry_after_s:.3f} s", retry_after_s=retry_after_s)


def _parts(sizes: Sequence[int], begin: int, end: int) -> list[tuple[int, int]]:
    """Rows ``begin`` to ``end`` in parts of at most N characters, at least a row each."""
    parts, first, held = [], begin, 0
    for row in range(begin, end):
        if held and held + sizes[row] > _SLICE_CHARACTERS:
            parts.append((first, row))
            first, held = row, 0
        held += sizes[row]
    return [*parts, (first, end)]
