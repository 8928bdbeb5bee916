"""An input that makes its batch fail, hang or give no number is found, and its batch-mates are answered."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from pairwire.server.engine import Engine, EngineConfig, Model
from pairwire.server.errors import EngineFault, InvalidInput
from pairwire.server.runtime.base import Float32Array, TokenBatch
from pairwire.server.runtime.fake import FakeRuntime, row_sums
from tests.server import serving
from tests.server.engine import toys

WORDS = "abcdefghijklmnop"
POISON = "~"
POISON_ID = toys.wordpiece().token_to_id(POISON)
EXPECTED = {
    word: float(sum(toys.wordpiece().encode("the", word).ids))
    for word in (*WORDS, POISON, *(POISON + w for w in WORDS))
}


def poisoned(batch: TokenBatch) -> np.ndarray:
    """[rows] whether a row has the token."""
    return np.asarray((batch.input_ids == POISON_ID).any(axis=1))


class Holding:
    """An engine with one worker whose first run waits, so that what is asked meanwhile runs as one batch."""

    def __init__(self, runtime: FakeRuntime, gate: threading.Event, config: EngineConfig) -> None:
        self.runtime, self.gate = runtime, gate
        self.engine = Engine([toys.toy_model(runtime, config=config)], config=config)

    async def ask(self, *words: str) -> list[float | BaseException]:
        """A request for each word, all in one batch; what each got."""
        first = asyncio.create_task(self.engine.score([("the", "dog")]))
        await asyncio.to_thread(self.runtime.started.acquire)
        calls = [asyncio.create_task(self.engine.score([("the", word)])) for word in words]
        await serving.eventually(lambda: self.engine.statistics().queued_rows == len(words))
        self.gate.set()
        await first
        results = await asyncio.gather(*calls, return_exceptions=True)
        return [each if isinstance(each, BaseException) else float(each.scores[0, 0]) for each in results]

    @property
    def healthy(self) -> bool:
        return self.engine.statistics().models["toy"].healthy


def holding(gate: threading.Event, runtime: FakeRuntime, *, hang_timeout_s: float = 30.0) -> Holding:
    return Holding(runtime, gate, EngineConfig(workers=1, probe_interval_s=3600, hang_timeout_s=hang_timeout_s))


def raising(batch: TokenBatch) -> Float32Array:
    if poisoned(batch).any():
        raise RuntimeError("index out of range")
    return row_sums(batch)


@pytest.mark.parametrize("culprits", [{3}, {0, 15}, {4, 5, 6}, set(range(16))], ids=str)
async def test_batch_mates_of_an_input_that_makes_a_run_raise_are_answered(culprits: set[int]) -> None:
    gate = threading.Event()
    runtime = FakeRuntime(raising, gate=gate)
    setup = holding(gate, runtime)
    async with setup.engine:
        words = [POISON + word if at in culprits else word for at, word in enumerate(WORDS)]
        answers = await setup.ask(*words)
        assert setup.healthy
    for at, (word, answer) in enumerate(zip(words, answers, strict=True)):
        if at in culprits:
            assert isinstance(answer, InvalidInput)
            assert answer.field == "pairs[0]"
            assert "the model fails on it, and on no other (RuntimeError)" in answer.reason
        else:
            assert answer == EXPECTED[word]
    whole, probe = runtime.batches[1:3]
    assert (whole.rows, probe.rows) == (16, 1)
    assert len(runtime.batches) - 3 <= 2 * 16


async def test_the_row_is_named_where_a_request_has_several() -> None:
    async with Engine([toys.toy_model(FakeRuntime(raising))], config=EngineConfig(workers=1)) as engine:
        with pytest.raises(InvalidInput, match=r"^documents\[2\]: the model fails on it"):
            await engine.score_documents("the", ["a", "b", POISON, "c"])


async def test_who_follows_the_row_of_another_gets_the_same_error_under_its_own_name() -> None:
    gate = threading.Event()
    runtime = FakeRuntime(raising, gate=gate)
    async with holding(gate, runtime).engine as engine:
        one = asyncio.create_task(engine.score([("the", POISON)]))
        await asyncio.to_thread(runtime.started.acquire)
        other = asyncio.create_task(engine.score_documents("the", ["a", POISON]))
        await serving.eventually(lambda: engine.statistics().queued_rows == 1)
        gate.set()
        first, second = await asyncio.gather(one, other, return_exceptions=True)
    assert isinstance(first, InvalidInput)
    assert isinstance(second, InvalidInput)
    assert (first.field, second.field) == ("pairs[0]", "documents[1]")


async def test_a_failure_that_passes_costs_nobody_anything() -> None:
    runtime = FakeRuntime(fail_on={0})
    async with Engine([toys.toy_model(runtime)], config=EngineConfig(workers=1)) as engine:
        assert (await engine.score([("the", "a")])).scores[0, 0] == EXPECTED["a"]
        assert engine.statistics().models["toy"].healthy
    assert [batch.rows for batch in runtime.batches] == [1, 1, 1]  # the failure, the probe, once more


async def test_a_model_that_fails_on_anything_is_not_run_again() -> None:
    gate = threading.Event()
    runtime = FakeRuntime(gate=gate)
    setup = holding(gate, runtime)
    async with setup.engine:
        first = asyncio.create_task(setup.engine.score([("the", "dog")]))
        await asyncio.to_thread(runtime.started.acquire)
        runtime.broken = True
        gate.set()
        with pytest.raises(EngineFault, match=r"model 'toy' failed while it ran \(RuntimeError\)"):
            await first
        assert not setup.healthy
    assert len(runtime.batches) == 2


async def test_batch_mates_of_an_input_that_makes_a_run_hang_are_answered() -> None:
    def hanging(batch: TokenBatch) -> None:
        if poisoned(batch).any():
            told.wait()
            told.clear()
            raise RuntimeError("told to end")

    class Hanging(FakeRuntime):
        def interrupt(self, thread: int) -> None:
            told.set()

    gate, told = threading.Event(), threading.Event()
    setup = holding(gate, Hanging(gate=gate, on_run=hanging), hang_timeout_s=0.05)
    async with setup.engine:
        answers = await setup.ask("a", "b", POISON, "c")
        assert setup.healthy
    assert answers[:2] + answers[3:] == [EXPECTED[word] for word in "abc"]
    assert isinstance(answers[2], InvalidInput)
    assert "came to no end on it, and was stopped" in answers[2].reason


async def test_a_batch_of_which_everything_hangs_is_given_up() -> None:
    class Hanging(FakeRuntime):
        def interrupt(self, thread: int) -> None:
            told.set()

    def hanging(batch: TokenBatch) -> None:
        nonlocal hangs
        if poisoned(batch).any():
            hangs += 1
            told.wait()
            told.clear()
            raise RuntimeError("told to end")

    hangs = 0
    gate, told = threading.Event(), threading.Event()
    setup = holding(gate, Hanging(gate=gate, on_run=hanging), hang_timeout_s=0.02)
    async with setup.engine:
        answers = await setup.ask(*(POISON + word for word in WORDS))
        assert setup.healthy
    assert hangs == 12
    assert {type(answer) for answer in answers} == {InvalidInput, EngineFault}


async def test_a_model_that_gives_no_finite_number_at_all_is_at_fault() -> None:
    def nothing(batch: TokenBatch) -> Float32Array:
        return np.full((batch.rows, 1), np.nan, np.float32)

    async with Engine([toys.toy_model(FakeRuntime(nothing))], config=EngineConfig(workers=1)) as engine:
        with pytest.raises(EngineFault, match=r"model 'toy' failed while it ran \(NotFinite\)"):
            await engine.score([("the", "a")])
        assert not engine.statistics().models["toy"].healthy


async def test_the_time_of_a_search_is_not_taken_for_what_a_batch_costs() -> None:
    def costs(model: Model) -> float:
        return model.costs.factor

    model = toys.toy_model(FakeRuntime(raising))
    async with Engine([model], config=EngineConfig(workers=1)) as engine:
        with pytest.raises(InvalidInput):
            await engine.score([("the", POISON)])
        assert costs(model) == 1.0
        await engine.score([("the", "a")])
        assert costs(model) != 1.0
