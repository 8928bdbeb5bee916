"""Reranks that take a partial result: answered in time with what there was time and room for, the first documents."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from pairwire.server.engine import Engine, EngineConfig, FirstStage, RequestEvent, SimClock, UnscoredReason
from pairwire.server.engine.anytime import answer_after
from pairwire.server.engine.observer import Observer
from pairwire.server.engine.outputs.ranking import rank
from pairwire.server.errors import EngineFault, InvalidInput, NotReady
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from tests.server import serving
from tests.server.engine import toys

QUERY = "bread"
DOCUMENTS = [f"flour water {number}" for number in range(100)]
ONE = EngineConfig(workers=1)
HOURS_S = 10_000.0


class Requests(Observer):
    """Keeps what is told of requests."""

    def __init__(self) -> None:
        self.seen: list[RequestEvent] = []

    def batch_finished(self, event: object) -> None:
        pass

    def request_finished(self, event: RequestEvent) -> None:
        self.seen.append(event)

    def model_health(self, model: str, healthy: bool) -> None:
        pass


class Stoppable:
    """An engine with one worker whose runs wait for ``gate`` from run number ``free`` on."""

    def __init__(self, free: int = 0, config: EngineConfig = ONE) -> None:
        self.gate = threading.Event()
        self.runtime = FakeRuntime(on_run=self._wait)
        self._free = free
        self.observer = Requests()
        self.engine = Engine([toys.toy_model(self.runtime, config=config)], config=config, observer=self.observer)

    def _wait(self, batch: TokenBatch) -> None:
        if len(self.runtime.batches) > self._free:
            self.gate.wait()


def slow(observer: Observer | None = None) -> Engine:
    """One worker, to which a token is a second, on a clock of its own; some eight for a document. And a bi-encoder."""
    clock = SimClock()

    def runtime(token_s: float, outputs: int) -> FakeRuntime:
        return FakeRuntime(outputs=outputs, on_run=lambda batch: clock.advance(token_s * batch.input_ids.size))

    scorer = toys.toy_model(runtime(1.0, 1), token_s=1.0)
    near = toys.toy_model(runtime(1e-3, 4), toys.bi_encoder_manifest(), token_s=1e-3)
    return Engine([scorer, near], config=ONE, clock=clock, observer=observer)


@pytest.fixture
async def stopped() -> AsyncIterator[Stoppable]:
    setup = Stoppable()
    yield setup
    setup.gate.set()
    await setup.engine.close()


async def test_where_there_is_time_for_all_it_is_the_whole_answer() -> None:
    async with Engine([toys.toy_model()]) as engine:
        plain = await engine.rerank(QUERY, DOCUMENTS)
        for timeout_s in (None, HOURS_S):
            found = await engine.rerank(QUERY, DOCUMENTS, timeout_s=timeout_s, partial_ok=True)
            assert found.scores.tolist() == plain.scores.tolist()
            assert found.unscored is None
            assert found.usage.tokens == plain.usage.tokens


async def test_where_there_is_not_the_first_documents_are_scored_and_the_others_have_a_reason() -> None:
    observer = Requests()
    async with slow(observer) as engine:
        found = await engine.rerank(QUERY, DOCUMENTS, timeout_s=200.0, partial_ok=True)
    async with Engine([toys.toy_model()]) as engine:
        plain = (await engine.rerank(QUERY, DOCUMENTS)).scores[:, 0]
    assert found.unscored is not None
    count = len(DOCUMENTS) - len(found.unscored.indices)
    assert 5 < count < 60  # some 180 / 8 before the first has run
    assert found.unscored.indices == tuple(range(count, len(DOCUMENTS)))
    assert found.unscored.reason is UnscoredReason.DEADLINE
    assert "the deadline is in" in found.unscored.sentence
    assert found.scores[:count, 0].tolist() == plain[:count].tolist()
    assert np.isnan(found.scores[count:]).all()
    (event,) = observer.seen
    assert (event.rows, event.unscored, event.outcome.value) == (100, 100 - count, "ok")


async def test_an_answer_comes_with_what_is_there_where_the_estimate_was_too_hopeful(stopped: Stoppable) -> None:
    found = await stopped.engine.rerank(QUERY, DOCUMENTS, timeout_s=0.2, partial_ok=True)
    assert found.unscored is not None
    assert found.unscored.indices == tuple(range(100))
    assert found.unscored.reason is UnscoredReason.DEADLINE
    assert found.unscored.sentence == "the deadline came before they were scored"
    stopped.gate.set()
    whole = await stopped.engine.rerank(QUERY, DOCUMENTS, timeout_s=HOURS_S, partial_ok=True)
    assert whole.unscored is None  # what was left behind is in nobody's way
    assert stopped.engine.statistics().open_requests == 0
    assert np.isnan(found.scores).all()  # and writes into nobody's answer


async def test_what_was_scored_by_then_is_answered() -> None:
    setup = Stoppable(free=1, config=EngineConfig(workers=1, batch_tokens=64))
    found = await setup.engine.rerank(QUERY, DOCUMENTS, timeout_s=1.0, partial_ok=True)
    setup.gate.set()
    await setup.engine.close()
    assert found.unscored is not None
    assert 0 < len(found.unscored.indices) < len(DOCUMENTS)
    assert len(found.unscored.indices) == np.isnan(found.scores).sum()


async def test_a_full_queue_leaves_out_what_it_has_no_room_for() -> None:
    setup = Stoppable(config=EngineConfig(workers=1, queue_tokens=200))
    busy = asyncio.create_task(setup.engine.score([(QUERY, "water")]))
    await asyncio.to_thread(setup.runtime.started.acquire)
    waiting = asyncio.create_task(setup.engine.score([(QUERY, f"flour {number}") for number in range(5)]))
    await serving.eventually(lambda: setup.engine.statistics().queued_rows == 5)
    asked = asyncio.create_task(setup.engine.rerank(QUERY, DOCUMENTS, partial_ok=True))
    await serving.eventually(lambda: setup.engine.statistics().queued_rows > 5)
    setup.gate.set()
    found = await asked
    await asyncio.gather(busy, waiting)
    await setup.engine.close()
    assert found.unscored is not None
    assert found.unscored.reason is UnscoredReason.OVERLOADED
    assert "has no room for" in found.unscored.sentence
    first = found.unscored.indices[0]
    assert 0 < first < 50
    assert found.unscored.indices == tuple(range(first, 100))


async def test_without_any_time_nothing_is_scored_and_it_is_an_answer_all_the_same(stopped: Stoppable) -> None:
    async with slow() as engine:
        found = await engine.rerank(QUERY, DOCUMENTS, timeout_s=0.5, partial_ok=True)
    assert found.unscored is not None
    assert len(found.unscored.indices) == 100
    assert rank(found.scores[:, 0], 3) == [0, 1, 2]


async def test_what_is_wrong_is_an_error_as_ever(stopped: Stoppable) -> None:
    with pytest.raises(InvalidInput, match=r"^documents\[1\]: "):
        await stopped.engine.rerank(QUERY, ["a", "\ud800"], timeout_s=0.01, partial_ok=True)
    with pytest.raises(InvalidInput, match=r"^documents: empty"):
        await stopped.engine.rerank(QUERY, [], partial_ok=True)
    await stopped.engine.drain()
    with pytest.raises(NotReady):
        await stopped.engine.rerank(QUERY, DOCUMENTS, partial_ok=True)


async def test_a_fault_is_an_error_as_ever(stopped: Stoppable) -> None:
    stopped.runtime.broken = True
    stopped.gate.set()
    with pytest.raises(EngineFault):
        await stopped.engine.rerank(QUERY, DOCUMENTS, timeout_s=HOURS_S, partial_ok=True)


async def test_a_caller_that_leaves_leaves_nothing_behind(stopped: Stoppable) -> None:
    task = asyncio.create_task(stopped.engine.rerank(QUERY, DOCUMENTS, timeout_s=HOURS_S, partial_ok=True))
    await asyncio.to_thread(stopped.runtime.started.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    statistics = stopped.engine.statistics()
    assert (statistics.queued_rows, statistics.open_requests) == (0, 0)


async def test_with_a_first_stage_the_nearest_are_scored_and_the_others_keep_its_order() -> None:
    async with slow() as engine:
        stage = FirstStage(keep=60)
        found = await engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=stage, timeout_s=200.0, partial_ok=True)
        nothing = await engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=stage, timeout_s=1e-9, partial_ok=True)
    assert found.unscored is not None
    missing = np.isnan(found.scores)
    assert 0 < missing.sum() < 60
    assert found.indices[missing].tolist() == list(found.unscored.indices)
    assert found.first_stage_scores[~missing].min() >= found.first_stage_scores[missing].max()
    last = found.first_stage_scores[rank(found.scores, otherwise=found.first_stage_scores)][-missing.sum() :]
    assert last.tolist() == sorted(last, reverse=True)
    assert nothing.unscored is not None
    assert nothing.unscored.indices == tuple(range(60)) == tuple(nothing.indices)
    assert np.isnan(nothing.scores).all()
    assert np.isnan(nothing.first_stage_scores).all()


def test_what_has_no_score_comes_last() -> None:
    scores = np.array([math.nan, 0.5, math.nan, 0.7, math.nan], np.float32)
    assert rank(scores) == [3, 1, 0, 2, 4]
    assert rank(scores, otherwise=np.array([1, 0, 3, 0, 2], np.float32)) == [3, 1, 2, 4, 0]
    assert rank(scores, 3, otherwise=np.array([1, 0, 3, 0, 2], np.float32)) == [3, 1, 2]
    assert rank(scores[1::2], otherwise=scores[1::2]) == [1, 0]


@pytest.mark.parametrize("timeout_s", [0.001, 0.02, 0.1, 1.0, 30.0])
def test_an_answer_leaves_time_to_travel(timeout_s: float) -> None:
    assert timeout_s / 2 <= answer_after(timeout_s) < timeout_s
    assert timeout_s - answer_after(timeout_s) <= 0.2
    assert timeout_s / 2 <= answer_after(timeout_s, 0.1) < answer_after(timeout_s) or timeout_s <= 0.03
