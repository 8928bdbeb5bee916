"""Clients that leave in the middle leave nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server import serving
from tests.server.requests import work

pytestmark = pytest.mark.slow

CLIENTS = 200
WARM_ROUNDS = 4
"""After this many the allocator has what it needs for such a crowd."""
ROUNDS = 8
MOST_GROWTH_BYTES = 20 << 20
"""Over the later rounds. The texts alone of one of them are 8 MB."""


async def leave_in_the_middle(server: serving.Process) -> None:
    channels = [server.channel() for _ in range(CLIENTS)]
    calls = [ScoringServiceStub(channel).Rerank(work(100, client)) for client, channel in enumerate(channels)]
    await server.wait_for_metric("pairwire_open_requests", lambda value: value >= CLIENTS / 2)
    for call in calls:
        call.cancel()
    await asyncio.gather(*(channel.close() for channel in channels))
    for series in ("pairwire_open_requests", "pairwire_queue_rows", "pairwire_queue_tokens", "pairwire_running_rows"):
        await server.wait_for_metric(series, lambda value: value == 0)


async def test_200_clients_that_all_disconnect_leave_no_work_and_no_growing_memory(slow_package: Path) -> None:
    memory = []
    async with serving.start(slow_package, "--queue-s", "600") as server:
        for _ in range(ROUNDS):
            await leave_in_the_middle(server)
            memory.append(await server.metric("process_resident_memory_bytes"))
        async with server.channel() as channel:
            answer = await ScoringServiceStub(channel).Rerank(scoring_pb2.RerankRequest(query="q", documents=["d"]))
        assert len(answer.results) == 1
    assert memory[-1] - memory[WARM_ROUNDS - 1] < MOST_GROWTH_BYTES, memory
