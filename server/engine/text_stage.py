"""Where calls are tokenised: short ones on the event loop, long ones on threads of their own, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..errors import Overloaded
from .call import Call
from .clock import Clock
from .text import EncodedRows

INLINE_CHARACTERS = 512
"""Texts up to so many characters together are tokenised on the event loop. They hold it up for some 0.2 ms; a hop to a
thread and back would cost some 0.06 ms more (one Zen 4 core)."""

_CHARACTERS_PER_TOKEN = 8
"""More than any language has on average: text within the bound is refused by its tokens, never by its characters."""


class TextStage:
    """The tokenising threads and what waits for them. Belongs to one event loop."""

    def __init__(self, threads: int, *, queue_tokens: int, clock: Clock, wait_s: Callable[[], float]) -> None:
        """``wait_s`` estimates when a refused caller should come back."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pairwire-text")
        self._limit = _CHARACTERS_PER_TOKEN * queue_tokens
        self._clock = clock
        self._wait_s = wait_s
        self._characters = 0

    async def encode(self, call: Call) -> EncodedRows:
        """All rows of a call.

        Raises:
            InvalidInput: as the encoder.
            Overloaded: too much text waits already.
        """
        started = self._clock.monotonic()
        rows, characters = call.texts.rows, call.texts.characters
        if characters <= INLINE_CHARACTERS:
            encoded = call.texts.encode(0, rows)
        else:
            self._check_backlog(characters)
            self._characters += characters
            try:
                encoded = await asyncio.get_running_loop().run_in_executor(self._pool, call.texts.encode, 0, rows)
            finally:
                self._characters -= characters
        call.tokenize_s = self._clock.monotonic() - started
        call.tokens = encoded.tokens
        call.truncated = encoded.truncated.tolist()
        return encoded

    def close(self) -> None:
        """Takes no more; does not wait."""
        self._pool.shutdown(wait=False)

    def _check_backlog(self, characters: int) -> None:
        """The queue is bounded in tokens, and before they are counted, text is bounded too."""
        if self._characters and self._characters + characters > self._limit:
            retry_after_s = self._wait_s()
            raise Overloaded(
                f"{self._characters} characters wait to be tokenised, at most {self._limit} may; "
                f"try again in {retry_after_s:.3f} s",
                retry_after_s=retry_after_s,
            )
