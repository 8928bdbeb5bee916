"""Large texts are read slice by slice, and nobody waits for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from pairwire.server.engine.text.encoder import EncodedRows
from pairwire.server.engine.text.special_tokens import no_special_tokens
from pairwire.server.engine.text.stage import TextStage
from pairwire.server.errors import NotReady, Overloaded


@dataclass
class Rows:
    """Texts of this many characters each, which are read when ``gate`` opens, and by name in ``order``."""

    name: str
    texts: Sequence[int]
    order: list[str]
    gate: threading.Event
    ranges: list[tuple[int, int]] = field(default_factory=list)
    may_be_split: bool = True
    most_tokens: int = 8

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def characters(self) -> int:
        return sum(self.texts)

    @property
    def row_characters(self) -> float:
        return self.characters / self.rows

    def sizes(self) -> list[int]:
        return list(self.texts)

    def check(self) -> None:
        pass

    def encode(self, begin: int, end: int) -> EncodedRows:
        self.gate.wait(10)
        self.order.append(self.name)
        self.ranges.append((begin, end))
        rows = [(str(index).encode(), 0, 0) for index in range(begin, end)]
        return EncodedRows(no_special_tokens(8), rows, np.ones(len(rows), np.int32), np.zeros(0, np.int32))


@asynccontextmanager
async def _stage(queue_tokens: int = 1 << 20) -> AsyncIterator[TextStage]:
    stage = TextStage(1, queue_tokens=queue_tokens, wait_s=lambda: 0.5)
    try:
        yield stage
    finally:
        stage.close()


async def _read(stage: TextStage, texts: Rows, *, stream: bool = False, caller: str = "") -> list[bytes]:
    return [row[0] async for rows in stage.encode(texts, stream=stream, caller=caller) for row in rows.rows]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_small_text_waits_for_a_slice_or_two_of_a_large_one_and_not_for_all(stream: bool) -> None:
    order, gate = list[str](), threading.Event()
    large, small = Rows("large", [12_000] * 100, order, gate), Rows("small", [600], order, gate)
    async with _stage() as stage:
        reading = asyncio.create_task(_read(stage, large, stream=stream))
        await asyncio.sleep(0)
        other = asyncio.create_task(_read(stage, small))
        await asyncio.sleep(0)
        gate.set()
        assert await other == [b"0"]
        assert await reading == [str(index).encode() for index in range(100)]
    assert order.index("small") <= 3
    assert max(sum(large.texts[begin:end]) for begin, end in large.ranges) <= 32_768
    assert [begin for begin, _ in large.ranges] == [0, *(end for _, end in large.ranges[:-1])]


async def test_what_nobody_waits_for_any_more_is_not_read() -> None:
    order, gate = list[str](), threading.Event()
    large = Rows("large", [12_000] * 100, order, gate)
    async with _stage() as stage:
        reading = asyncio.create_task(_read(stage, large))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        gate.set()
        assert await _read(stage, Rows("small", [600], order, gate)) == [b"0"]
    assert order in (["small"], ["large", "small"])


async def test_one_caller_does_not_hold_all_of_the_room() -> None:
    gate = threading.Event()

    def rows(size: int) -> Rows:
        return Rows("any", [size], [], gate)

    async with _stage(queue_tokens=1000) as stage:  # 8,000 characters
        first = asyncio.create_task(_read(stage, rows(3000), caller="a"))
        await asyncio.sleep(0)
        with pytest.raises(
            Overloaded, match="3000 characters of yours wait to be tokenised, at most 6000 may"
        ) as caught:
            await _read(stage, rows(3001), caller="a")
        assert caught.value.retry_after_s > 0.5
        second = asyncio.create_task(_read(stage, rows(4500), caller="b"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="7500 characters wait to be tokenised, at most 8000 may"):
            await _read(stage, rows(1000), caller="c")
        gate.set()
        await asyncio.gather(first, second)
        assert await _read(stage, rows(7000), caller="a") == [b"0"]


async def test_a_text_that_is_read_while_the_stage_is_closed_ends_with_a_reason() -> None:
    gate = threading.Event()
    async with _stage() as stage:
        reading = asyncio.create_task(_read(stage, Rows("large", [12_000] * 100, [], gate)))
        await asyncio.sleep(0)
        stage.close()  # a drain has reached its limit
        gate.set()
        with pytest.raises(NotReady, match="the engine was closed before the request was done"):
            await reading
        with pytest.raises(NotReady):
            await stage.run(lambda: None, 600, "")
