"""Where calls are tokenised: short ones on the event loop, long ones on threads of their own, within a bound."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

from ...errors import Overloaded
from .encoder import EncodedRows, join
from .inputs import Texts

INLINE_CHARACTERS = 512
"""Texts up to so many characters together are tokenised on the event loop. They hold it up for some 0.2 ms; a hop to a
thread and back would cost some 0.06 ms more (one Zen 4 core)."""

_CHARACTERS_PER_TOKEN = 8
"""More than any language has on average: text within the bound is refused by its tokens, never by its characters."""

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

    def may_stream(self, texts: Texts) -> bool:
        """Whether it pays to compute the first rows while the others are still being tokenised, and cannot go wrong."""
        large = texts.rows >= _STREAM_ROWS or (texts.rows > _LEAST_ROWS and texts.characters >= _SPLIT_CHARACTERS)
        return large and texts.may_be_split

    async def encode(self, texts: Texts, *, stream: bool = False) -> AsyncGenerator[EncodedRows, None]:
        """All rows in order: in one piece, or, to ``stream`` them, in several. Close it when you stop reading early.

        Streamed, a few rows come first, then more and more; or, where threads share them, all pieces are about equal.

        Raises:
            InvalidInput: as the encoder; where rows are streamed, before the first of them, but for a token without an
                embedding, which is found when its slice is tokenised.
            Overloaded: too much text waits already.
        """
        characters = texts.characters
        if characters <= INLINE_CHARACTERS:
            yield texts.encode(0, texts.rows)
            return
        self._check_backlog(characters)
        least = _SPLIT_CHARACTERS if self._characters else _SPLIT_IDLE_CHARACTERS
        slices = self._slices(texts, characters, stream, least)
        if len(slices) > 1:
            texts.check()
        self._characters += characters
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self._pool, texts.encode, begin, end) for begin, end in slices]
        try:
            if stream:
                for each in waiting:
                    yield await each
            else:
                yield join([await each for each in waiting])
        finally:
            self._characters -= characters
            for each in waiting:
                each.cancel()

    def close(self) -> None:
        """Takes no more; does not wait."""
        self._pool.shutdown(wait=False)

    def _slices(self, texts: Texts, characters: int, stream: bool, least: int) -> list[tuple[int, int]]:
        """Rows from where to where are tokenised by one thread at a time, at ``least`` so many characters each."""
        rows = texts.rows
        sizes: list[int] = []
        if stream and self._threads <= _FEW_THREADS:
            size = max(_LEAST_ROWS, min(_FIRST_ROWS, rows * _FIRST_CHARACTERS // characters))
            while sum(sizes) < rows:
                sizes.append(size)
                size *= _GROWTH
        else:
            count = min(self._threads, rows, characters // least) if texts.may_be_split else 1
            sizes = [-(-rows // max(1, count))] * max(1, count)
        ends = [min(rows, end) for end in itertools.accumulate(sizes)]
        return [(begin, end) for begin, end in itertools.pairwise([0, *ends]) if begin < end]

    def _check_backlog(self, characters: int) -> None:
        """The queue is bounded in tokens, and before they are counted, text is bounded too."""
        if self._characters and self._characters + characters > self._limit:
            retry_after_s = self._wait_s()
            raise Overloaded(
                f"{self._characters} characters wait to be tokenised, at most {self._limit} may; "
                f"try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )
