"""The engine over a fake runtime: what callers see of queueing, deadlines, cancellation, faults and shutdown."""

import asyncio
import gc
import itertools
import string
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest

from pairwire.server.engine import (
    Activation,
    BatchEvent,
    EmbedOptions,
    Engine,
    EngineConfig,
    ModelKind,
    Outcome,
    RequestEvent,
    ScoreOptions,
    SimClock,
    Truncation,
)
from pairwire.server.engine.batching.cost import CostTable
from pairwire.server.engine.batching.planner import Plan, PoolView
from pairwire.server.engine.models.building import build_model
from pairwire.server.engine.text.encoder import TextEncoder, TextRules
from pairwire.server.errors import (
    ConfigInvalid,
    DeadlineExceeded,
    EngineFault,
    InvalidInput,
    ModelNotFound,
    NotReady,
    Overloaded,
    WrongModelKind,
)
from pairwire.server.runtime.base import DeviceLost, Float32Array, TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import scoring_pb2
from tests.server.engine import toys

PAIRS = [("the quick fox", "the lazy dog"), ("bake bread", "mix flour and water"), ("", "the park"), ("the", "the")]
BUSY = [("what keeps", "the only worker busy")]
ONE = EngineConfig(workers=1, probe_interval_s=3600)


class Recorder:
    """Keeps every event, and lets a test wait for one."""

    def __init__(self) -> None:
        self.batches: list[BatchEvent] = []
        self.requests: list[RequestEvent] = []
        self.health: list[tuple[str, bool]] = []
        self.flipped = threading.Semaphore(0)

    def batch_finished(self, event: BatchEvent) -> None:
        self.batches.append(event)

    def request_finished(self, event: RequestEvent) -> None:
        self.requests.append(event)

    def model_health(self, model: str, healthy: bool) -> None:
        self.health.append((model, healthy))
        self.flipped.release()

    @property
    def outcomes(self) -> list[Outcome]:
        return [event.outcome for event in self.requests]


class Gated:
    """An engine with one worker whose runs wait until ``gate`` is set."""

    def __init__(self, config: EngineConfig = ONE, clock: SimClock | None = None) -> None:
        self.gate = threading.Event()
        self.runtime = FakeRuntime(gate=self.gate)
        self.recorder = Recorder()
        self.engine = Engine(
            [toys.toy_model(self.runtime, config=config)], config=config, clock=clock, observer=self.recorder
        )

    async def until_running(self, runs: int = 1) -> None:
        for _ in range(runs):
            await asyncio.to_thread(self.runtime.started.acquire)


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    setup = Gated()
    yield setup
    setup.gate.set()
    await setup.engine.close()


def _alone(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """What the fake runtime gives for each pair: the sum of its token ids."""
    tokenizer = toys.wordpiece()
    return [float(sum(tokenizer.encode(first, second).ids)) for first, second in pairs]


async def test_scores_come_back_in_input_order() -> None:
    async with Engine([toys.toy_model()]) as engine:
        result = await engine.score(PAIRS)
    assert result.scores.dtype == np.float32
    assert result.scores[:, 0].tolist() == _alone(PAIRS)
    assert (result.labels, result.model) == (("LABEL_0",), "toy")


async def test_rows_from_the_variants_unpadded_length_on_run_alone_and_unpadded() -> None:
    manifest = toys.cross_encoder_manifest()
    manifest.variants.add(name="long", unpadded_from=20)
    runtime = FakeRuntime()
    encoder = TextEncoder(toys.wordpiece(), TextRules(max_length=64))
    model = build_model(manifest, encoder, runtime, variant="long", config=EngineConfig(warmup_s=0.01))
    measured = len(runtime.batches)
    pairs = [("the quick fox", "the lazy dog " * times) for times in range(1, 20) for _ in range(2)]
    async with Engine([model]) as engine:
        result = await engine.score(pairs)
    assert result.scores[:, 0].tolist() == _alone([(first, second.strip()) for first, second in pairs])
    batches = runtime.batches[measured:]
    assert {batch.length for batch in batches} > {21, 24, 60}
    assert all(batch.lengths.tolist() == [batch.length] for batch in batches if batch.length >= 20)


async def test_documents_are_scored_like_pairs_with_the_query() -> None:
    documents = [second for _, second in PAIRS]
    async with Engine([toys.toy_model()]) as engine:
        result = await engine.score_documents("how do I bake", documents)
    assert result.scores[:, 0].tolist() == _alone([("how do I bake", document) for document in documents])


async def test_usage_and_timing_add_up() -> None:
    recorder = Recorder()
    pairs = [*PAIRS, ("the " * 100, "dog")]
    async with Engine([toys.toy_model()], observer=recorder) as engine:
        result = await engine.score(pairs)
    assert result.usage.truncated_inputs == (4,)
    assert result.usage.tokens == sum(event.useful_tokens for event in recorder.batches)
    assert result.usage.tokens + result.usage.padded_tokens == sum(event.computed_tokens for event in recorder.batches)
    assert min(result.timing.queue_s, result.timing.tokenize_s, result.timing.compute_s) >= 0
    (event,) = recorder.requests
    assert (event.model, event.kind, event.rows) == ("toy", ModelKind.CROSS_ENCODER, 5)
    assert (event.tokens, event.outcome) == (result.usage.tokens, Outcome.OK)
    assert (event.queue_s, event.compute_s) == (result.timing.queue_s, result.timing.compute_s)


async def test_pairs_that_are_alike_are_computed_once_and_billed_each() -> None:
    recorder, runtime = Recorder(), FakeRuntime()
    long = ("the " * 100, "dog")
    async with Engine([toys.toy_model(runtime)], observer=recorder) as engine:
        alone = await engine.score([*PAIRS, long])
        result = await engine.score([PAIRS[0], long, PAIRS[1], PAIRS[0], long, *PAIRS])
        shared = engine.statistics().models["toy"].shared_rows
    assert result.scores[:, 0].tolist() == [alone.scores[index, 0] for index in (0, 4, 1, 0, 4, 0, 1, 2, 3)]
    assert result.usage.truncated_inputs == (1, 4)
    assert sum(event.rows for event in recorder.batches) == 5 + 5
    assert shared == 4
    repeated = await _tokens([PAIRS[0], long, PAIRS[1], PAIRS[0], long])
    assert result.usage.tokens == repeated + await _tokens(PAIRS)


async def _tokens(pairs: Sequence[tuple[str, str]]) -> int:
    async with Engine([toys.toy_model()]) as engine:
        return sum([(await engine.score([pair])).usage.tokens for pair in pairs])


async def test_an_error_names_the_first_of_inputs_that_are_alike() -> None:
    options = ScoreOptions(truncation=Truncation.ERROR)
    async with Engine([toys.toy_model()]) as engine:
        with pytest.raises(InvalidInput, match=r"^documents\[2\]: 103 tokens"):
            await engine.score_documents("a", ["b", "b", "a " * 99, "b", "a " * 99], options=options)


async def test_requests_that_are_alike_share_one_run(gated: Gated) -> None:
    busy = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    tasks = [asyncio.create_task(gated.engine.score(PAIRS)) for _ in range(5)]
    await asyncio.sleep(0)  # short texts are tokenised and queued in one step
    assert gated.engine.statistics().queued_rows == 4
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert gated.engine.statistics().queued_rows == 4
    gated.gate.set()
    results = await asyncio.gather(*tasks[1:])
    await busy
    assert all(result.scores[:, 0].tolist() == _alone(PAIRS) for result in results)
    assert sum(event.rows for event in gated.recorder.batches) == 5
    assert gated.engine.statistics().models["toy"].shared_rows == 3 * 4
    assert [result.usage.padded_tokens > 0 for result in results] == [True, False, False, False]


async def test_a_fault_reaches_all_who_share_the_run(gated: Gated) -> None:
    gated.runtime.failing = {0, 1}  # the run, and the probe after it
    tasks = [asyncio.create_task(gated.engine.score(PAIRS[:1])) for _ in range(3)]
    await gated.until_running()
    gated.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, EngineFault) for result in results)
    assert len({id(result) for result in results}) == 3


async def test_a_deadline_is_kept_by_who_only_follows(gated: Gated) -> None:
    busy = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    followers = [asyncio.create_task(gated.engine.score(BUSY, timeout_s=0.02)) for _ in range(2)]
    outcomes = await asyncio.gather(*followers, return_exceptions=True)
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
    gated.gate.set()
    assert (await busy).scores[:, 0].tolist() == _alone(BUSY)


async def test_known_scores_are_not_computed_again() -> None:
    config = EngineConfig(workers=1, score_cache_bytes=1 << 20)
    runtime, recorder = FakeRuntime(), Recorder()
    models = [
        toys.toy_model(runtime, config=config),
        toys.toy_model(manifest=toys.bi_encoder_manifest(), config=config),
    ]
    async with Engine(models, config=config, observer=recorder) as engine:
        first = await engine.score(PAIRS)
        again = await engine.score(PAIRS)
        activated = await engine.score(PAIRS, options=ScoreOptions(activation=Activation.SIGMOID))
        more = await engine.score([BUSY[0], PAIRS[2]])
        vectors = [await engine.embed(["the quick fox"]) for _ in range(2)]
        statistics = engine.statistics().score_cache
    assert sum(event.rows for event in recorder.batches) == 4 + 1 + 1
    assert again.scores.tolist() == first.scores.tolist()
    assert (again.usage.tokens, again.usage.padded_tokens) == (first.usage.tokens, 0)
    assert (again.timing.queue_s, again.timing.compute_s) == (0.0, 0.0)
    assert activated.scores.tolist() == [[1.0]] * 4
    assert more.scores[:, 0].tolist() == _alone([BUSY[0], PAIRS[2]])
    assert vectors[0].embeddings.tolist() == vectors[1].embeddings.tolist()
    assert (statistics.hits, statistics.misses, statistics.entries) == (4 + 4 + 1 + 1, 4 + 1 + 1, 6)


async def test_a_score_that_is_not_finite_is_not_kept() -> None:
    def broken_once(batch: TokenBatch) -> Float32Array:
        return np.full((batch.rows, 1), np.nan if len(runtime.batches) == 1 else 1.0, np.float32)

    runtime = FakeRuntime(broken_once)
    config = EngineConfig(workers=1, score_cache_bytes=1 << 20)
    async with Engine([toys.toy_model(runtime, config=config)], config=config) as engine:
        with pytest.raises(InvalidInput, match="not a finite number"):
            await engine.score(PAIRS[:1])
        assert (await engine.score(PAIRS[:1])).scores.tolist() == [[1.0]]


async def test_activation_is_the_checkpoints_own_unless_asked() -> None:
    def logits(batch: TokenBatch) -> Float32Array:
        return np.tile(np.array([[0.0, 1.0]], np.float32), (batch.rows, 1))

    manifest = toys.cross_encoder_manifest(labels=("no", "yes"))
    manifest.activation = scoring_pb2.ACTIVATION_SOFTMAX
    async with Engine([toys.toy_model(FakeRuntime(logits), manifest)]) as engine:
        own = await engine.score(PAIRS)
        raw, sigmoid = await asyncio.gather(
            engine.score(PAIRS, options=ScoreOptions(activation=Activation.IDENTITY)),
            engine.score(PAIRS, options=ScoreOptions(activation=Activation.SIGMOID)),
        )
    np.testing.assert_allclose(own.scores, np.tile([[0.26894143, 0.7310586]], (4, 1)), rtol=1e-6)
    assert raw.scores.tolist() == [[0.0, 1.0]] * 4
    np.testing.assert_allclose(sigmoid.scores, np.tile([[0.5, 0.7310586]], (4, 1)), rtol=1e-6)
    assert own.labels == ("no", "yes")


async def test_texts_are_embedded_with_the_prompt_that_was_asked_for() -> None:
    manifest = toys.bi_encoder_manifest(prompts={"query": "query: ", "none": ""}, default_prompt_name="query")
    tokenizer = toys.wordpiece()
    async with Engine([toys.toy_model(manifest=manifest)]) as engine:
        default = await engine.embed(["the fox"])
        plain = await engine.embed(["the fox"], options=EmbedOptions(prompt_name="none"))
        with pytest.raises(
            InvalidInput, match="prompt_name: 'passage' is unknown; model 'toy-embedder' has 'none', 'query'"
        ):
            await engine.embed(["the fox"], options=EmbedOptions(prompt_name="passage"))
    assert default.embeddings.tolist() == [[sum(tokenizer.encode("query: the fox").ids)] * 4]
    assert plain.embeddings.tolist() == [[sum(tokenizer.encode("the fox").ids)] * 4]
    assert default.model == "toy-embedder"
    assert default.embeddings.dtype == np.float32


async def test_a_model_without_prompts_says_so() -> None:
    async with Engine([toys.toy_model(manifest=toys.bi_encoder_manifest())]) as engine:
        with pytest.raises(InvalidInput, match="has none at all"):
            await engine.embed(["the fox"], options=EmbedOptions(prompt_name="query"))


async def test_many_concurrent_requests_of_two_models_each_get_their_own() -> None:
    config = EngineConfig(workers=4)
    models = [toys.toy_model(config=config), toys.toy_model(manifest=toys.bi_encoder_manifest(), config=config)]
    words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "bake", "bread"]
    pairs = [[(" ".join(words[: n % 11]), " ".join(words[m % 7 :])) for m in range(n % 13 + 1)] for n in range(150)]
    async with Engine(models, config=config) as engine:
        scores, vectors = await asyncio.gather(
            asyncio.gather(*(engine.score(chunk, timeout_s=60) for chunk in pairs)),
            asyncio.gather(*(engine.embed([first for first, _ in chunk]) for chunk in pairs)),
        )
        statistics = engine.statistics()
    tokenizer = toys.wordpiece()
    for chunk, score, vector in zip(pairs, scores, vectors, strict=True):
        assert score.scores[:, 0].tolist() == _alone(chunk)
        assert vector.embeddings[:, 0].tolist() == [sum(tokenizer.encode(first).ids) for first, _ in chunk]
    assert (statistics.queued_rows, statistics.running_rows, statistics.open_requests) == (0, 0, 0)


async def test_a_request_is_shared_by_idle_workers() -> None:
    config = EngineConfig(workers=2)
    gate = threading.Event()
    runtime = FakeRuntime(gate=gate)
    # The clock stands still, so that the first batch is not late by the time of the second one's plan.
    async with Engine([toys.toy_model(runtime, config=config)], config=config, clock=SimClock()) as engine:
        answer = asyncio.create_task(engine.score([(a, b) for a in string.ascii_lowercase[:8] for b in "wxyz"]))
        for _ in range(2):
            await asyncio.to_thread(runtime.started.acquire)
        assert engine.statistics().running_batches == 2
        assert [batch.rows for batch in runtime.batches] == [16, 16]
        gate.set()
        await answer


async def test_large_texts_are_tokenised_off_the_event_loop() -> None:
    async with Engine([toys.toy_model()]) as engine:
        pair = ("the fox " * 2000, "the dog " * 2000)
        result = await engine.score([pair, PAIRS[0]])
    assert result.scores[1, 0] == _alone(PAIRS)[0]
    assert result.usage.truncated_inputs == (0,)


async def test_models_are_found_by_name_or_by_kind() -> None:
    models = [
        toys.toy_model(manifest=toys.cross_encoder_manifest("first")),
        toys.toy_model(manifest=toys.cross_encoder_manifest("second")),
        toys.toy_model(manifest=toys.bi_encoder_manifest("vectors")),
    ]
    async with Engine(models) as engine:
        assert (await engine.score(PAIRS, model="second")).model == "second"
        assert (await engine.embed(["a"])).model == "vectors"
        assert list(engine.models) == ["first", "second", "vectors"]
        with pytest.raises(
            InvalidInput, match="model: empty, but there are several of kind cross-encoder; name one of 'first'"
        ):
            await engine.score(PAIRS)
        with pytest.raises(ModelNotFound, match=r"no model 'third' is loaded; there is 'first' \(cross-encoder\)"):
            await engine.score(PAIRS, model="third")
        with pytest.raises(WrongModelKind, match="'vectors' is a bi-encoder: it embeds single texts"):
            await engine.score_documents("a", ["b"], model="vectors")
        with pytest.raises(WrongModelKind, match="'first' is a cross-encoder: it scores pairs"):
            await engine.embed(["a"], model="first")


async def test_no_model_of_the_kind_says_what_there_is() -> None:
    async with Engine([toys.toy_model()]) as engine:
        with pytest.raises(InvalidInput, match="no model of kind bi-encoder is loaded; there is 'toy'"):
            await engine.embed(["a"])


async def test_model_info_tells_what_serves() -> None:
    async with Engine([toys.toy_model()], config=EngineConfig(workers=3)) as engine:
        info = engine.models["toy"]
    assert (info.kind, info.max_length, info.workers) == (ModelKind.CROSS_ENCODER, 64, 3)
    assert info.bucket_lengths == tuple(range(8, 65, 2))
    assert info.runtime.provider == "FakeExecutionProvider"
    assert info.manifest.labels == ["LABEL_0"]


def test_an_engine_needs_models_of_different_names() -> None:
    with pytest.raises(ConfigInvalid, match="no model to serve"):
        Engine([])
    with pytest.raises(ConfigInvalid, match="two models are named 'toy'"):
        Engine([toys.toy_model(), toys.toy_model()])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine: engine.score([]), "pairs: empty; give at least one"),
        (lambda engine: engine.score_documents("a", []), "documents: empty; give at least one"),
        (lambda engine: engine.score_documents("\ud800", ["a"]), "query: not valid Unicode"),
        (lambda engine: engine.score_documents("a", ["b", None]), r"documents\[1\]: expected text, got NoneType"),
        (lambda engine: engine.score([("a", "b"), ("a", "\ud800")]), r"pairs\[1\]\.second: not valid Unicode"),
        (lambda engine: engine.score([("a", "b")], options=ScoreOptions(max_length=65)), "max_length: 65 is more"),
        (lambda engine: engine.score([("a", "b")] * 64, options=ScoreOptions(max_length=65)), "max_length: 65 is more"),
        (
            lambda engine: engine.score([("a " * 99, "b")], options=ScoreOptions(truncation=Truncation.ERROR)),
            r"pairs\[0\]\.second: 103 tokens",
        ),
    ],
)
async def test_bad_input_is_named_and_the_next_request_is_served(
    call: Callable[[Engine], "asyncio.Future[object]"], message: str
) -> None:
    recorder = Recorder()
    async with Engine([toys.toy_model()], observer=recorder) as engine:
        with pytest.raises(InvalidInput, match=f"^{message}"):
            await call(engine)
        assert (await engine.score(PAIRS)).scores[:, 0].tolist() == _alone(PAIRS)
    assert recorder.outcomes == [Outcome.INVALID, Outcome.OK]


async def test_cancelled_work_leaves_the_queue_at_once(gated: Gated) -> None:
    running = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    queued = asyncio.create_task(gated.engine.score(PAIRS))
    await asyncio.sleep(0)  # short texts are tokenised and queued in one step
    assert gated.engine.statistics().queued_rows == 4
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert gated.engine.statistics().queued_rows == 0
    gated.gate.set()
    await running
    assert len(gated.runtime.batches) == 1
    assert gated.recorder.outcomes == [Outcome.CANCELLED, Outcome.OK]


async def test_results_of_a_cancelled_running_request_are_thrown_away(gated: Gated) -> None:
    running = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gated.gate.set()
    assert (await gated.engine.score(PAIRS[1:2])).scores[0, 0] == _alone(PAIRS)[1]


async def test_clients_that_all_leave_in_the_middle_leave_nothing_behind(gated: Gated) -> None:
    first = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    crowd = [asyncio.create_task(gated.engine.score(PAIRS, timeout_s=3600)) for _ in range(200)]
    await asyncio.sleep(0)  # short texts are tokenised and queued in one step
    assert gated.engine.statistics().queued_rows == 4  # all of them want the same
    left_behind = [weakref.ref(task) for task in crowd]
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    statistics = gated.engine.statistics()
    assert (statistics.queued_rows, statistics.queued_tokens, statistics.open_requests) == (0, 0, 1)
    gated.gate.set()
    await first
    crowd.clear()
    del task
    gc.collect()
    assert not any(reference() for reference in left_behind)


async def test_a_deadline_ends_the_wait_even_while_the_request_runs(gated: Gated) -> None:
    with pytest.raises(DeadlineExceeded, match=r"not done within 0\.500 s"):
        await gated.engine.score(PAIRS[:1], timeout_s=0.5)  # shorter, and it may pass in the queue of a busy machine
    assert gated.recorder.outcomes == [Outcome.DEADLINE]


async def test_no_time_at_all_is_refused_before_anything_is_done() -> None:
    runtime = FakeRuntime()
    async with Engine([toys.toy_model(runtime)]) as engine:
        for timeout_s in (0.0, -1.0, float("nan")):
            with pytest.raises(DeadlineExceeded, match="leaves no time"):
                await engine.score(PAIRS, timeout_s=timeout_s)
    assert runtime.batches == []


async def test_expired_work_is_never_run() -> None:
    clock = SimClock()
    gated = Gated(clock=clock)
    async with gated.engine:
        running = asyncio.create_task(gated.engine.score(BUSY))
        await gated.until_running()
        late = asyncio.create_task(gated.engine.score(PAIRS[1:2], timeout_s=3600))
        await asyncio.sleep(0)  # short texts are tokenised and queued in one step
        assert gated.engine.statistics().queued_rows == 1
        clock.advance(3600)
        gated.gate.set()
        await running
        with pytest.raises(DeadlineExceeded, match="could not be met any more, while the request waited"):
            await late
    assert len(gated.runtime.batches) == 1


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    slow = toys.toy_model(token_s=10.0)
    async with Engine([slow]) as engine:
        with pytest.raises(DeadlineExceeded, match="the answer would take about"):
            await engine.score(PAIRS, timeout_s=30)


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    config = EngineConfig(workers=1, queue_tokens=100)
    gated = Gated(config)
    async with gated.engine as engine:
        running = asyncio.create_task(engine.score(BUSY))
        await gated.until_running()
        queued = asyncio.create_task(engine.score([("the " * 30, "the " * 29)]))
        await asyncio.sleep(0)  # short texts are tokenised and queued in one step
        assert engine.statistics().queued_rows == 1
        with pytest.raises(Overloaded, match="62 tokens of at most 100") as caught:
            await engine.score([("the " * 29, "the " * 30)])
        assert caught.value.retry_after_s > 0
        gated.gate.set()
        await asyncio.gather(running, queued)
    assert gated.recorder.outcomes == [Outcome.OVERLOADED, Outcome.OK, Outcome.OK]


async def test_a_request_larger_than_the_queue_is_told_to_split() -> None:
    config = EngineConfig(workers=1, queue_tokens=100)
    async with Engine([toys.toy_model(config=config)], config=config) as engine:
        with pytest.raises(
            InvalidInput, match=r"documents: \d+ tokens are more than the whole queue holds \(100\); split"
        ):
            await engine.score_documents("the fox", ["the lazy dog " + letter for letter in string.ascii_lowercase])


async def test_text_that_waits_to_be_tokenised_is_bounded_too() -> None:
    config = EngineConfig(workers=1, text_threads=1, queue_tokens=1000)
    long = [("the fox " * 60, "")] * 13  # 6,240 characters, 832 tokens
    async with Engine([toys.toy_model(config=config)], config=config) as engine:
        first, second = await asyncio.gather(engine.score(long), engine.score(long), return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, Overloaded)
    assert "6240 characters of yours wait to be tokenised, at most 6000 may" in str(second)


async def test_draining_finishes_what_was_accepted_and_refuses_the_rest(gated: Gated) -> None:
    tasks = [asyncio.create_task(gated.engine.score(PAIRS)) for _ in range(3)]
    await gated.until_running()
    drained = asyncio.create_task(gated.engine.drain())
    await asyncio.sleep(0)
    assert gated.engine.statistics().draining
    with pytest.raises(NotReady, match="draining"):
        await gated.engine.score(PAIRS)
    assert not drained.done()
    gated.gate.set()
    await drained
    assert all(task.result().scores[:, 0].tolist() == _alone(PAIRS) for task in tasks)
    await gated.engine.drain()


async def test_closing_fails_what_waits_and_frees_everything() -> None:
    before = set(threading.enumerate())  # an earlier test's thread may still be on its way out
    gated = Gated()
    running = asyncio.create_task(gated.engine.score(BUSY))
    await gated.until_running()
    queued = asyncio.create_task(gated.engine.score(PAIRS))
    await asyncio.sleep(0)  # short texts are tokenised and queued in one step
    assert gated.engine.statistics().queued_rows == 4
    closing = asyncio.create_task(gated.engine.close())
    with pytest.raises(NotReady, match="closed before the request was done"):
        await queued
    gated.gate.set()
    await closing
    with pytest.raises(NotReady):
        await running
    assert gated.runtime.closed
    with pytest.raises(NotReady):
        await gated.engine.score(PAIRS)
    await gated.engine.close()
    ours = set(threading.enumerate()) - before
    assert not [thread for thread in ours if thread.name.startswith("pairwire-worker")]


async def test_closing_meets_a_request_that_is_being_tokenised() -> None:
    engine = Engine([toys.toy_model()], config=ONE)
    answer = asyncio.create_task(engine.score([("the fox " * 20000, "")]))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(NotReady, match="the engine is closed"):
        await answer


async def test_a_failed_model_fails_its_requests_and_the_next_are_served() -> None:
    recorder, runtime = Recorder(), FakeRuntime(fail_on={0, 1})
    async with Engine([toys.toy_model(runtime)], config=ONE, observer=recorder) as engine:
        with pytest.raises(EngineFault, match=r"model 'toy' failed while it ran \(RuntimeError\)"):
            await engine.score(PAIRS)
        assert not engine.statistics().models["toy"].healthy
        assert (await engine.score(PAIRS)).scores[:, 0].tolist() == _alone(PAIRS)
        assert engine.statistics().models["toy"].healthy
    assert recorder.health == [("toy", False), ("toy", True)]
    assert recorder.outcomes == [Outcome.FAULT, Outcome.OK]
    assert [(probe.rows, probe.length) for probe in runtime.batches[1:3]] == [(1, 8)] * 2


async def test_a_model_that_stays_broken_is_probed_and_its_requests_fail() -> None:
    recorder, runtime = Recorder(), FakeRuntime()
    runtime.broken = True
    config = EngineConfig(workers=1, probe_interval_s=3600)
    other = toys.toy_model(manifest=toys.cross_encoder_manifest("other"), config=config)
    async with Engine([toys.toy_model(runtime, config=config), other], config=config, observer=recorder) as engine:
        for _ in range(3):
            with pytest.raises(EngineFault):
                await engine.score(PAIRS, model="toy")
        assert (await engine.score(PAIRS, model="other")).scores.shape == (4, 1)
        statistics = engine.statistics()
    assert [batch.rows for batch in runtime.batches][1:] == [1, 1, 1]
    assert recorder.health == [("toy", False)]
    assert (statistics.models["toy"].healthy, statistics.models["other"].healthy) == (False, True)


async def test_an_idle_worker_finds_out_that_a_model_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    recorder, runtime = Recorder(), FakeRuntime(fail_on={0, 1, 2})
    config = EngineConfig(workers=2, probe_interval_s=0.01)
    async with Engine([toys.toy_model(runtime, config=config)], config=config, observer=recorder) as engine:
        with pytest.raises(EngineFault):
            await engine.score(PAIRS[:1])
        for _ in range(2):
            await asyncio.to_thread(recorder.flipped.acquire)
        assert engine.statistics().models["toy"].healthy
    assert recorder.health == [("toy", False), ("toy", True)]
    assert [batch.rows for batch in runtime.batches] == [1, 1, 1, 1]
    assert "still fails" in caplog.text


async def test_a_graph_of_the_wrong_shape_is_a_fault_that_tells_no_text() -> None:
    def wrong(batch: TokenBatch) -> Float32Array:
        return np.zeros((batch.rows, 7), np.float32)

    async with Engine([toys.toy_model(FakeRuntime(wrong))], config=ONE) as engine:
        with pytest.raises(EngineFault) as caught:
            await engine.score([("secret", "text")])
    assert "secret" not in str(caught.value)


async def test_a_score_that_is_not_finite_fails_its_own_request_only() -> None:
    def sometimes_nan(batch: TokenBatch) -> Float32Array:
        sums = np.where(np.arange(batch.length) < batch.lengths[:, None], batch.input_ids, 0).sum(axis=1)
        return np.where(sums == _alone(PAIRS)[1], np.nan, sums)[:, None].astype(np.float32)

    gate = threading.Event()
    runtime = FakeRuntime(sometimes_nan, gate=gate)
    async with Engine([toys.toy_model(runtime)], config=ONE) as engine:
        tasks = [asyncio.create_task(engine.score([pair])) for pair in PAIRS]
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.statistics().models["toy"].healthy
    assert isinstance(results[1], InvalidInput)
    assert "not a finite number" in str(results[1])
    assert [index for index, result in enumerate(results) if isinstance(result, BaseException)] == [1]


async def test_a_lost_device_ends_the_engine_and_answers_all_that_waits() -> None:
    def lost(batch: TokenBatch) -> Float32Array:
        raise DeviceLost("device 0: an illegal memory access was encountered")

    fatal: asyncio.Queue[BaseException] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(error: BaseException) -> None:
        loop.call_soon_threadsafe(fatal.put_nowait, error)

    engine = Engine([toys.toy_model(FakeRuntime(lost))], on_fatal=tell)
    calls = [engine.score([pair]) for pair in PAIRS]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, EngineFault) for result in results), results
    assert isinstance(await fatal.get(), DeviceLost)
    assert engine.statistics().failed
    await engine.close()


async def test_a_dying_worker_takes_nobody_with_it_into_silence() -> None:
    def broken_planner(pool: PoolView, costs: CostTable, *, share_s: float, now: float) -> Plan:
        raise ZeroDivisionError("a bug in the planner")

    recorder = Recorder()
    fatal: asyncio.Queue[BaseException] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(error: BaseException) -> None:
        loop.call_soon_threadsafe(fatal.put_nowait, error)

    engine = Engine(
        [toys.toy_model()],
        config=EngineConfig(workers=2),
        observer=recorder,
        planner=broken_planner,
        on_fatal=tell,
    )
    with pytest.raises(EngineFault, match="stopped after a fault of its own"):
        await engine.score(PAIRS)
    assert isinstance(await fatal.get(), ZeroDivisionError)
    assert engine.statistics().failed
    assert not engine.statistics().models["toy"].healthy
    with pytest.raises(EngineFault, match="stopped after a fault of its own"):
        await engine.score(PAIRS)
    await engine.drain()
    await engine.close()
    assert recorder.health == [("toy", False)]
    assert recorder.outcomes == [Outcome.FAULT, Outcome.FAULT]
    assert fatal.empty()


async def test_a_dying_worker_fails_what_other_workers_run() -> None:
    calls = 0

    def planner_that_breaks_later(pool: PoolView, costs: CostTable, *, share_s: float, now: float) -> Plan:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError("a bug in the planner")
        return toys.whole_anchor(pool)

    gate = threading.Event()
    runtime = FakeRuntime(gate=gate)
    engine = Engine([toys.toy_model(runtime)], config=EngineConfig(workers=2), planner=planner_that_breaks_later)
    running = asyncio.create_task(engine.score(PAIRS[:1]))
    await asyncio.to_thread(runtime.started.acquire)
    with pytest.raises(EngineFault):
        await engine.score(PAIRS[1:2])
    with pytest.raises(EngineFault):
        await running
    gate.set()
    await engine.close()


async def test_an_observer_that_crashes_hurts_nobody() -> None:
    class Crashing(Recorder):
        def batch_finished(self, event: BatchEvent) -> None:
            raise RuntimeError("no metrics today")

    async with Engine([toys.toy_model()], observer=Crashing()) as engine:
        for _ in range(2):
            assert (await engine.score(PAIRS)).scores.shape == (4, 1)


MANY = [(first, " ".join(second)) for first in ("the", "fox", "a dog") for second in itertools.permutations("abcde", 4)]


async def test_a_large_request_is_computed_while_the_rest_of_it_is_tokenised() -> None:
    config = EngineConfig(workers=2)
    runtime, recorder = FakeRuntime(), Recorder()
    pairs = [*MANY, ("the " * 100, "dog"), *MANY[:40], ("the " * 100, "dog")]
    async with Engine([toys.toy_model(runtime, config=config)], config=config, observer=recorder) as engine:
        result = await engine.score(pairs)
        assert (engine.statistics().queued_tokens, engine.statistics().open_requests) == (0, 0)
    assert result.scores[: len(MANY), 0].tolist() == _alone(MANY)
    assert result.scores[len(MANY) + 1 : -1, 0].tolist() == _alone(MANY[:40])
    assert result.usage.truncated_inputs == (len(MANY), len(pairs) - 1)
    assert recorder.requests[0].tokens == result.usage.tokens > sum(event.useful_tokens for event in recorder.batches)


@pytest.mark.parametrize("text_threads", [1, 3])
async def test_a_large_request_behind_others_is_tokenised_in_pieces_and_queued_in_one(text_threads: int) -> None:
    gated = Gated(EngineConfig(workers=1, text_threads=text_threads))
    async with gated.engine as engine:
        busy = asyncio.create_task(engine.score(BUSY))
        await gated.until_running()
        waiting = asyncio.create_task(engine.score(PAIRS))
        large = asyncio.create_task(engine.score([(first, second * 20) for first, second in MANY]))
        gated.gate.set()
        result = await large
        await asyncio.gather(busy, waiting)
    assert result.scores.shape == (len(MANY), 1)
    repeated = toys.wordpiece()
    last = repeated.encode(MANY[-1][0], MANY[-1][1] * 20)
    assert (len(last.ids) > 64) == (len(MANY) - 1 in result.usage.truncated_inputs)


@pytest.mark.parametrize("bad", ["\ud800", None])
async def test_a_bad_text_at_the_end_of_a_large_request_is_named_before_anything_is_computed(bad: str) -> None:
    runtime = FakeRuntime()
    async with Engine([toys.toy_model(runtime)]) as engine:
        with pytest.raises(InvalidInput, match=rf"^pairs\[{len(MANY)}\]\.second: "):
            await engine.score([*MANY, ("the fox", bad)])
        assert engine.statistics().queued_rows == 0
    assert runtime.batches == []


async def test_what_cannot_be_cut_is_never_computed_in_part() -> None:
    runtime = FakeRuntime()
    options = ScoreOptions(truncation=Truncation.ERROR)
    async with Engine([toys.toy_model(runtime)]) as engine:
        with pytest.raises(InvalidInput, match=rf"^pairs\[{len(MANY)}\]\.second: 103 tokens"):
            await engine.score([*MANY, ("a " * 99, "b")], options=options)
    assert runtime.batches == []


async def test_a_fault_in_the_first_rows_of_a_large_request_fails_all_of_it() -> None:
    runtime = FakeRuntime(fail_on={0, 1})
    async with Engine([toys.toy_model(runtime)], config=ONE) as engine:
        with pytest.raises(EngineFault):
            await engine.score(MANY)
        statistics = engine.statistics()
        assert (statistics.queued_rows, statistics.open_requests) == (0, 0)
        assert (await engine.score(MANY)).scores[:, 0].tolist() == _alone(MANY)


async def test_closing_meets_a_large_request_of_which_a_part_is_queued() -> None:
    gated = Gated()
    answer = asyncio.create_task(gated.engine.score([(first, second * 200) for first, second in MANY]))
    await gated.until_running()
    closing = asyncio.create_task(gated.engine.close())
    await asyncio.sleep(0)
    gated.gate.set()
    with pytest.raises(NotReady):
        await answer
    await closing


async def test_room_that_is_kept_for_a_large_request_is_given_to_nobody_else() -> None:
    rows = len(MANY)
    gated = Gated(EngineConfig(workers=1, text_threads=1, queue_tokens=rows * 64 + 5))
    async with gated.engine as engine:
        long = [(first, second * 400) for first, second in MANY]
        large = asyncio.create_task(engine.score(long))
        await asyncio.sleep(0)  # the room is kept, nothing is tokenised yet
        with pytest.raises(Overloaded, match="are on their way, and there is no room for another"):
            await engine.score([("the fox jumps", "over the lazy dog")])
        gated.gate.set()
        await large
        assert (await engine.score(PAIRS)).scores[:, 0].tolist() == _alone(PAIRS)
