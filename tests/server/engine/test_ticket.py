import asyncio

import numpy as np
import pytest

from pairwire.server.engine import Activation
from pairwire.server.engine.buckets import Ladder
from pairwire.server.engine.pool import Request, make_request
from pairwire.server.engine.text import TextEncoder, TextRules
from pairwire.server.engine.ticket import Ticket, settle
from pairwire.server.errors import EngineFault
from tests.server.engine import toys


def _request(loop: asyncio.AbstractEventLoop) -> Request[Ticket]:
    encoded = TextEncoder(toys.wordpiece(), TextRules(max_length=16)).encode_texts(["the fox"])
    ticket = Ticket(encoded, Activation.IDENTITY, np.empty((1, 1), np.float32), loop.create_future())
    return make_request(Ladder.up_to(16), "toy", encoded.lengths, ticket)


async def test_all_who_wait_are_told_from_another_thread() -> None:
    loop = asyncio.get_running_loop()
    done, failed = [_request(loop) for _ in range(3)], [_request(loop) for _ in range(2)]
    await asyncio.to_thread(settle, done)
    await asyncio.to_thread(settle, failed, lambda: EngineFault("broken"))
    results = await asyncio.gather(*(request.payload.done for request in [*done, *failed]), return_exceptions=True)
    assert results[:3] == [None] * 3
    assert [str(result) for result in results[3:]] == ["broken"] * 2
    assert results[3] is not results[4]


async def test_who_has_left_is_not_told() -> None:
    request = _request(asyncio.get_running_loop())
    request.payload.done.cancel()
    settle([request])
    await asyncio.sleep(0)
    assert request.payload.done.cancelled()


def test_requests_of_a_closed_event_loop_are_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    requests = [_request(loop), _request(loop)]
    loop.close()
    settle(requests)
    assert "2 requests ended after their event loop was closed" in caplog.text
