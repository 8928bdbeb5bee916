import asyncio

import numpy as np
import pytest

from pairwire.server.engine.outputs.heads import Head
from pairwire.server.engine.running.ticket import Ticket, settle
from pairwire.server.errors import EngineFault


def _ticket(loop: asyncio.AbstractEventLoop) -> Ticket:
    return Ticket("toy", "pairs", Head(), np.empty((1, 1), np.float32), loop.create_future())


async def test_all_who_wait_are_told_from_another_thread() -> None:
    loop = asyncio.get_running_loop()
    done, failed = [_ticket(loop) for _ in range(3)], [_ticket(loop) for _ in range(2)]
    await asyncio.to_thread(settle, done)
    await asyncio.to_thread(settle, failed, lambda: EngineFault("broken"))
    results = await asyncio.gather(*(ticket.done for ticket in [*done, *failed]), return_exceptions=True)
    assert results[:3] == [None] * 3
    assert [str(result) for result in results[3:]] == ["broken"] * 2
    assert results[3] is not results[4]


async def test_who_has_left_is_not_told() -> None:
    ticket = _ticket(asyncio.get_running_loop())
    ticket.done.cancel()
    settle([ticket])
    await asyncio.sleep(0)
    assert ticket.done.cancelled()


def test_requests_of_a_closed_event_loop_are_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    tickets = [_ticket(loop), _ticket(loop)]
    loop.close()
    settle(tickets)
    assert "2 requests ended after their event loop was closed" in caplog.text
