"""Priorities over the wire: whom a busy server serves first, told by the order of its batches."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import pytest

from pairwire.server.app import Application
from pairwire.server.engine import Clock, Engine, EngineConfig, Model, Observer, Priority, SimClock
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import embedding_pb2, scoring_pb2
from pairwire.v1.embedding_pb2_grpc import EmbeddingServiceStub
from pairwire.v1.scoring_pb2 import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_UNSPECIFIED
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub
from tests.server import serving
from tests.server.engine import toys

CONFIG = EngineConfig(workers=1, batch_tokens=1)
"""One row a batch."""
BATCH_S = 0.5
"""In the server's time, which only batches move on."""
LOW_WORDS, NORMAL_WORDS = 9, 2


class Busy:
    """A server whose runs wait at a gate and note the words of their text."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.gate = threading.Event()
        self.order: list[int] = []
        self.least_queued = 0
        """A run lasts until this many rows wait."""
        self.engine: Engine

    def runtime(self, special_tokens: int, outputs: int = 1) -> FakeRuntime:
        """A runtime that takes half a second of the server's time for a row."""

        def note(batch: TokenBatch) -> None:
            while self.engine.statistics().queued_rows < self.least_queued:
                time.sleep(0.001)
            self.clock.advance(BATCH_S)
            self.order.append(int(batch.lengths[0]) - special_tokens)

        return FakeRuntime(outputs=outputs, gate=self.gate, on_run=note)

    @contextlib.asynccontextmanager
    async def serve(self, models: Sequence[Model]) -> AsyncIterator[grpc.aio.Channel]:
        """Starts the server; a channel to it."""

        async def open_engine(
            *packages: Path | str,
            config: EngineConfig | None = None,
            clock: Clock | None = None,
            observer: Observer | None = None,
            on_fatal: Callable[[BaseException], None] | None = None,
        ) -> Engine:
            return Engine(models, config=config, clock=self.clock, observer=observer, on_fatal=on_fatal)

        application = Application(serving.config(engine=CONFIG), open_engine=open_engine)
        await application.listen()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
            await application.load()
            self.engine = application.engine
            try:
                yield channel
            finally:
                self.gate.set()
                await application.abort()

    async def queued(self, rows: int) -> None:
        """Returns once this many rows wait."""
        await serving.eventually(lambda: self.engine.statistics().queued_rows == rows)


def pair(words: int, priority: scoring_pb2.Priority.ValueType) -> scoring_pb2.ScoreRequest:
    """Asks for one pair of this many words."""
    pairs = [scoring_pb2.TextPair(first=toys.unlike(words))]
    return scoring_pb2.ScoreRequest(text_pairs=scoring_pb2.TextPairs(pairs=pairs), priority=priority)


def ranking(words: int, priority: scoring_pb2.Priority.ValueType) -> scoring_pb2.RerankRequest:
    """Asks for the rank of one document of this many words."""
    return scoring_pb2.RerankRequest(query="", documents=[toys.unlike(words)], priority=priority)


@pytest.mark.parametrize("request_of", [pair, ranking], ids=["Score", "Rerank"])
async def test_the_urgent_overtake_what_waits_and_equals_do_not(
    request_of: Callable[[int, scoring_pb2.Priority.ValueType], scoring_pb2.ScoreRequest | scoring_pb2.RerankRequest],
) -> None:
    busy = Busy()
    async with busy.serve([toys.toy_model(busy.runtime(3), config=CONFIG)]) as channel:
        scoring = ScoringServiceStub(channel)
        calls = []
        sent = [PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_UNSPECIFIED, PRIORITY_HIGH, PRIORITY_HIGH]
        for number, priority in enumerate(sent):
            request = request_of(number + 1, priority)
            call = scoring.Score(request) if isinstance(request, scoring_pb2.ScoreRequest) else scoring.Rerank(request)
            calls.append(asyncio.ensure_future(call))
            await serving.eventually(lambda: busy.engine.statistics().running_rows == 1)
            await busy.queued(number)
        busy.gate.set()
        await asyncio.gather(*calls)
    assert busy.order == [1, 5, 6, 3, 4, 2]


async def test_an_urgent_embedding_overtakes_pairs_of_another_model() -> None:
    busy = Busy()
    scorer = toys.toy_model(busy.runtime(3), config=CONFIG)
    embedder = toys.toy_model(busy.runtime(2, outputs=4), toys.bi_encoder_manifest(), config=CONFIG)
    async with busy.serve([scorer, embedder]) as channel:
        scoring, embedding = ScoringServiceStub(channel), EmbeddingServiceStub(channel)
        scores = [asyncio.ensure_future(scoring.Score(pair(1, PRIORITY_NORMAL))) for _ in range(3)]
        await busy.queued(2)
        urgent = embedding_pb2.EmbedRequest(texts=["the " * 7], priority=PRIORITY_HIGH)
        vectors = asyncio.ensure_future(embedding.Embed(urgent))
        await busy.queued(3)
        busy.gate.set()
        await asyncio.gather(vectors, *scores)
    assert busy.order == [1, 7, 1, 1]


async def test_low_priority_is_served_under_a_load_of_normal_requests_that_never_ends() -> None:
    busy = Busy()
    async with busy.serve([toys.toy_model(busy.runtime(3), config=CONFIG)]) as channel:
        scoring = ScoringServiceStub(channel)

        async def load() -> None:
            while True:
                await scoring.Score(pair(NORMAL_WORDS, PRIORITY_NORMAL))

        clients = [asyncio.create_task(load()) for _ in range(4)]
        await busy.queued(3)
        low = asyncio.ensure_future(scoring.Score(pair(LOW_WORDS, PRIORITY_LOW)))
        await busy.queued(4)
        busy.least_queued = 4  # whoever was answered has asked again before the next row is done
        busy.gate.set()
        await low
        busy.least_queued = 0
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    # For 32 seconds, 64 batches, whatever comes is more urgent; then what has come by then goes first.
    overtook = busy.order.index(LOW_WORDS)
    longer_s = Priority.LOW.patience_s - Priority.NORMAL.patience_s
    assert longer_s / BATCH_S <= overtook <= longer_s / BATCH_S + len(clients) + 1
