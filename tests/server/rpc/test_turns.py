"""Large calls of a caller that was refused are put aside while others are about, and go on one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from pairwire.server.errors import DeadlineExceeded, Overloaded
from pairwire.server.rpc import caller, turns
from pairwire.server.rpc.interceptors import Context
from pairwire.server.rpc.method import Answer
from pairwire.server.rpc.wire import Received
from pairwire.v1 import scoring_pb2
from tests.server import serving

LARGE = scoring_pb2.RerankRequest(query="q" * 10_000)
SMALL = scoring_pb2.RerankRequest(query="q")
NO_CONTEXT = cast(Context, None)


class Desk:
    """Calls of several callers; ``arriving`` has it look as if others were always on their way."""

    def __init__(self, error: Exception | None) -> None:
        self.begun: list[str] = []
        self.arriving = False
        self._arrived = 0
        self._error = error
        self.taking = turns.TakeTurns(self._count)
        self._handler = self.taking.wrap("Rerank", self._handle)

    def _count(self) -> int:
        self._arrived += self.arriving
        return self._arrived

    async def _handle(self, request: Received, context: Context) -> Answer:
        self.begun.append(caller.caller())
        if self._error is not None and caller.caller() != "other":
            raise self._error
        return b""

    def call(self, name: str, request: Received = LARGE) -> asyncio.Task[bool]:
        """Whether it was answered."""

        async def made() -> bool:
            caller._caller.set(name)
            try:
                await self._handler(request, NO_CONTEXT)
            except (Overloaded, DeadlineExceeded):
                return False
            return True

        return asyncio.create_task(made())


REFUSED = Overloaded("full", retry_after_s=1.0)


@contextmanager
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that is put aside goes on."""
    with monkeypatch.context() as patched:
        patched.setattr(turns, "_LOOK_S", 1000.0)
        yield


async def test_who_was_refused_while_others_are_about_waits_with_what_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(REFUSED)
    with frozen(monkeypatch):
        assert await desk.call("other")
        assert not await desk.call("flood")  # nobody has refused it before
        aside = desk.call("flood")
        await asyncio.wait([desk.call("flood", SMALL), desk.call("other"), desk.call("third")])
        assert desk.begun == ["other", "flood", "flood", "other", "third"]
        assert not aside.done()
        aside.cancel()


@pytest.mark.parametrize("error", [None, DeadlineExceeded("took too long")])
async def test_who_was_not_refused_for_the_load_waits_for_nobody(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(error)
    with frozen(monkeypatch):
        for _ in range(3):
            await desk.call("other")
            await desk.call("much")
    assert len(desk.begun) == 6


async def test_where_there_is_one_caller_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(REFUSED)
    with frozen(monkeypatch):
        for _ in range(3):
            assert not await desk.call("only")
    assert desk.begun == ["only"] * 3


@pytest.mark.parametrize("arriving", [False, True])
async def test_what_is_put_aside_goes_on_one_by_one_caller_by_caller(arriving: bool) -> None:
    desk = Desk(REFUSED)
    desk.arriving = arriving
    assert await desk.call("other")
    for name in ("a", "b"):
        assert not await desk.call(name)
    waiting = [desk.call(name) for name in ("a", "a", "a", "b", "b")]
    gone = desk.call("a")
    await asyncio.sleep(0)
    gone.cancel()
    assert await asyncio.gather(*waiting) == [False] * 5
    assert desk.begun == ["other", "a", "b", "a", "b", "a", "b", "a"]
    await serving.eventually(lambda: not desk.taking._aside)
    assert desk.taking._room == turns._MOST_BYTES


async def test_what_has_no_room_aside_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(REFUSED)
    with frozen(monkeypatch):
        assert await desk.call("other")
        assert not await desk.call("flood")
        aside = [desk.call("flood") for _ in range(turns._MOST_BYTES // LARGE.ByteSize())]
        await asyncio.sleep(0)
        assert not await desk.call("flood")
        assert not any(each.done() for each in aside)
        for each in aside:
            each.cancel()


async def test_only_so_many_callers_are_remembered() -> None:
    desk = Desk(REFUSED)
    for number in range(2 * turns._REMEMBERED):
        await desk.call(f"{number}", SMALL)
    assert len(desk.taking._refused) <= turns._REMEMBERED
