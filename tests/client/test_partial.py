"""Partial reranks in the clients: how they are asked for, and how what has no score is told."""

from __future__ import annotations

import math

import pytest

from pairwire.client import RerankResult, SplitLimits
from pairwire.v1 import scoring_pb2
from tests.client.conftest import Connect, EitherClient
from tests.client.fake_server import FakeServer

DOCUMENTS = ["a", "b", "c", "d"]


def answer(*entries: tuple[int, float | None]) -> scoring_pb2.RerankResponse:
    results = [
        scoring_pb2.RankedDocument(index=index, unscored=scoring_pb2.UNSCORED_DEADLINE)
        if score is None
        else scoring_pb2.RankedDocument(index=index, score=score)
        for index, score in entries
    ]
    missing = sum(score is None for _, score in entries)
    return scoring_pb2.RerankResponse(results=results, unscored=missing, unscored_reason="no time" if missing else "")


async def test_what_has_no_score_says_why(client: EitherClient, server: FakeServer) -> None:
    server.script.answer = answer((1, 0.5), (0, 0.25), (2, None), (3, None))
    found = await client.call("rerank", "q", DOCUMENTS, partial_ok=True)
    assert isinstance(found, RerankResult)
    assert [each.index for each in found] == [1, 0, 2, 3]
    assert [each.scored for each in found] == [True, True, False, False]
    assert [each.unscored for each in found] == [None, None, "deadline", "deadline"]
    assert all(math.isnan(each.score) for each in found[2:])
    assert (found.unscored, found.unscored_reason) == (2, "no time")
    assert server.script.requests[0].partial_ok  # type: ignore[attr-defined]


async def test_it_is_one_request_for_one_deadline(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, split=SplitLimits(max_items=2))
    await client.call("rerank", "q", DOCUMENTS, partial_ok=True)
    assert len(server.script.requests) == 1
    await client.call("rerank", "q", DOCUMENTS)
    assert len(server.script.requests) == 3
    assert not server.script.requests[-1].partial_ok  # type: ignore[attr-defined]


async def test_parts_of_what_is_too_large_are_put_together(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, split=SplitLimits(max_bytes=22, in_flight=1))
    server.script.answer = answer((1, 0.5), (0, None))
    found = await client.call("rerank", "q", DOCUMENTS, partial_ok=True)
    assert len(server.script.requests) == 2
    assert [(each.index, each.document, each.scored) for each in found] == [
        (1, "b", True),
        (3, "d", True),
        (0, "a", False),
        (2, "c", False),
    ]
    assert found.unscored == 2


async def test_a_reason_that_this_client_does_not_know_is_none_the_less_one(
    client: EitherClient, server: FakeServer
) -> None:
    response = answer((0, None))
    response.results[0].unscored = 99  # type: ignore[assignment]
    server.script.answer = response
    (found,) = await client.call("rerank", "q", ["a"], partial_ok=True)
    assert not found.scored


@pytest.mark.parametrize("value", [0.0, -1.0])
async def test_a_score_of_nought_is_a_score(client: EitherClient, server: FakeServer, value: float) -> None:
    server.script.answer = answer((0, value))
    (found,) = await client.call("rerank", "q", ["a"], partial_ok=True)
    assert (found.scored, found.score) == (True, value)
