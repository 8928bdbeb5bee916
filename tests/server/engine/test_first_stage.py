"""Retrieve, then rerank: both scores by hand, the cache of vectors, deadlines, cancellation, faults and drains."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from pairwire.server.engine import (
    Activation,
    EmbedOptions,
    Engine,
    EngineConfig,
    FirstStage,
    Model,
    Priority,
    ScoreOptions,
    SimClock,
    StagedResult,
    Truncation,
    build_model,
)
from pairwire.server.engine.batching.buckets import Ladder
from pairwire.server.engine.cache import CacheStatistics
from pairwire.server.engine.call import Accept, Call, Calls
from pairwire.server.engine.first_stage import nearest
from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.engine.text.encoder import TextEncoder
from pairwire.server.engine.text.token_ids import TokenIds
from pairwire.server.errors import (
    DeadlineExceeded,
    EngineFault,
    InvalidInput,
    ModelNotFound,
    NotReady,
    WrongModelKind,
)
from pairwire.server.runtime.base import Float32Array
from pairwire.server.runtime.fake import FakeRuntime
from tests.server import toy_packages
from tests.server.engine import toys

QUERY = "how do I bake bread"
DOCUMENTS = [
    "mix flour and water",
    "the dog runs in the park",
    "bake the bread without yeast",
    "prices rose in the second quarter",
    "the dog runs in the park",
    "The Dog runs in the park",
    "",
    "baking soda and flour make bread",
]
NEAREST_IS_EQUAL = FirstStage(keep=2, query_prompt_name="query", document_prompt_name="query")
"""One prompt for both sides: nothing is nearer to a query than the same text. Other vectors are random in each run, for
the toys' tokenizer is trained again."""
CONFIG = EngineConfig(warmup_s=0.01, cache_dir="none", workers=1)
PROMPTS = {"query": "query: ", "passage": "text: "}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cross-encoder, and a bi-encoder with prompts for both sides."""
    home = tmp_path_factory.mktemp("stages")
    return (
        toy_packages.write_cross_encoder(home / "scorer"),
        toy_packages.write_bi_encoder(home / "embedder", prompts=PROMPTS),
    )


@pytest.fixture
async def engine(packages: tuple[Path, Path]) -> AsyncIterator[Engine]:
    async with await Engine.open(*packages, config=CONFIG) as engine:
        yield engine


async def ask(engine: Engine, keep: int, documents: Sequence[str] = DOCUMENTS, **stage: str) -> StagedResult:
    return await engine.retrieve_and_rerank(QUERY, documents, first_stage=FirstStage(keep=keep, **stage))


async def cosines(engine: Engine, query_prompt: str, document_prompt: str) -> np.ndarray:
    """By another way: every text embedded by itself, in float64."""

    async def vector(text: str, prompt: str) -> np.ndarray:
        found = await engine.embed([text], options=EmbedOptions(prompt_name=prompt))
        return found.embeddings[0].astype(np.float64)

    query = await vector(QUERY, query_prompt)
    vectors = [await vector(text, document_prompt) for text in DOCUMENTS]
    return np.array([query @ each / np.linalg.norm(query) / np.linalg.norm(each) for each in vectors])


def same(first: StagedResult, second: StagedResult) -> bool:
    """The same documents with the same scores; similarities may differ by the batch that the query was embedded in."""
    return (
        first.indices.tolist() == second.indices.tolist()
        and first.scores.tolist() == second.scores.tolist()
        and np.allclose(first.first_stage_scores, second.first_stage_scores, rtol=0, atol=1e-5)
    )


async def test_both_scores_are_those_of_the_models_by_themselves(engine: Engine) -> None:
    similarities = await cosines(engine, "query", "passage")
    order = sorted(range(len(DOCUMENTS)), key=lambda index: (-round(similarities[index], 5), index))
    result = await ask(engine, 4)
    assert result.indices.tolist() == sorted(order[:4])
    np.testing.assert_allclose(result.first_stage_scores, similarities[result.indices], atol=1e-5)
    expected = await engine.score([(QUERY, DOCUMENTS[index]) for index in sorted(order[:4])])
    np.testing.assert_array_equal(result.scores, expected.scores[:, 0])
    assert np.ptp(result.scores) > 0.1, "or any order would pass"
    assert (result.model, result.first_stage.model, result.first_stage.kept) == ("scorer", "embedder", 4)
    assert (result.scores.dtype, result.first_stage_scores.dtype) == (np.float32, np.float32)


async def test_usage_is_told_for_each_stage_and_equal_documents_are_embedded_once(engine: Engine) -> None:
    query = await engine.embed([QUERY], options=EmbedOptions(prompt_name="query"))
    distinct = await engine.embed(list(dict.fromkeys(DOCUMENTS)), options=EmbedOptions(prompt_name="passage"))
    result = await ask(engine, 2)
    pairs = await engine.score([(QUERY, DOCUMENTS[index]) for index in result.indices])
    assert result.first_stage.usage.tokens == query.usage.tokens + distinct.usage.tokens
    assert result.usage.tokens == pairs.usage.tokens
    assert result.first_stage.timing.compute_s > 0
    assert result.timing.compute_s > 0


async def test_what_was_cut_is_told_by_its_place_among_all_documents(engine: Engine) -> None:
    long = "bake bread " * 60
    result = await engine.retrieve_and_rerank(
        long, ["the dog", long, "prices", "", long, "flour"], first_stage=NEAREST_IS_EQUAL
    )
    assert result.indices.tolist() == [1, 4]
    assert result.first_stage.usage.truncated_inputs == (1, 4)
    assert result.usage.truncated_inputs == (1, 4)


async def test_of_equally_near_documents_the_first_are_kept(engine: Engine) -> None:
    documents = ["the dog", "Bread", "flour", "bread", "Bread"]  # the tokenizer lowers letters
    result = await engine.retrieve_and_rerank("bread", documents, first_stage=NEAREST_IS_EQUAL)
    assert np.unique(result.first_stage_scores).size == 1
    assert result.indices.tolist() == [1, 3]


@pytest.mark.parametrize("keep", [len(DOCUMENTS), len(DOCUMENTS) + 1, 2**32 - 1])
async def test_more_than_there_are_means_all_and_they_have_both_scores(engine: Engine, keep: int) -> None:
    result = await ask(engine, keep)
    assert result.indices.tolist() == list(range(len(DOCUMENTS)))
    np.testing.assert_allclose(result.first_stage_scores, await cosines(engine, "query", "passage"), atol=1e-5)
    assert result.first_stage.kept == len(DOCUMENTS)


async def test_vectors_that_are_known_change_nothing_and_cost_nothing(engine: Engine) -> None:
    cold = await ask(engine, 3)
    warm = await ask(engine, 3)
    query = await engine.embed([QUERY], options=EmbedOptions(prompt_name="query"))
    assert same(cold, warm)
    assert (cold.first_stage.cached, warm.first_stage.cached) == (0, len(DOCUMENTS))
    assert warm.first_stage.usage.tokens == query.usage.tokens
    assert warm.first_stage.usage.truncated_inputs == ()


async def test_only_what_is_not_known_is_embedded(engine: Engine) -> None:
    await ask(engine, 1, DOCUMENTS[:2])
    result = await ask(engine, 3)
    query = await engine.embed([QUERY], options=EmbedOptions(prompt_name="query"))
    new = await engine.embed(
        list(dict.fromkeys(DOCUMENTS[2:4] + DOCUMENTS[5:])), options=EmbedOptions(prompt_name="passage")
    )
    assert result.first_stage.cached == 3  # the dog is there twice
    assert result.first_stage.usage.tokens == query.usage.tokens + new.usage.tokens
    statistics = engine.statistics().models["embedder"].vector_cache
    assert statistics is not None
    assert (statistics.hits, statistics.misses, statistics.entries) == (2, 7, 7)


async def test_a_vector_is_known_with_its_prompt_only(engine: Engine, packages: tuple[Path, Path]) -> None:
    await ask(engine, 3)
    other = await ask(engine, 3, document_prompt_name="query", query_prompt_name="passage")
    assert other.first_stage.cached == 0
    async with await Engine.open(*packages, config=CONFIG) as fresh:
        assert same(other, await ask(fresh, 3, document_prompt_name="query", query_prompt_name="passage"))
    np.testing.assert_allclose(
        other.first_stage_scores, (await cosines(engine, "passage", "query"))[other.indices], atol=1e-5
    )


@pytest.mark.parametrize("limit", [0, 700])
async def test_a_small_cache_keeps_to_its_bound_and_answers_alike(
    engine: Engine, packages: tuple[Path, Path], limit: int
) -> None:
    config = EngineConfig(warmup_s=0.01, cache_dir="none", workers=1, vector_cache_bytes=limit)
    expected = await ask(engine, 3)
    async with await Engine.open(*packages, config=config) as small:
        for _ in range(3):
            assert same(expected, await ask(small, 3))
        statistics = small.statistics().models["embedder"].vector_cache
    assert statistics is not None
    assert statistics.bytes <= statistics.limit_bytes == limit
    assert statistics.entries == (2 if limit else 0)
    assert small.statistics().models["scorer"].vector_cache is None


async def test_many_requests_at_once_get_the_same_answer(engine: Engine) -> None:
    results = await asyncio.gather(*(ask(engine, 3) for _ in range(16)))
    assert all(same(results[0], result) for result in results[1:])


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({}, "", "", ""),
        ({"query": "q: "}, "", "q: ", ""),
        ({"corpus": "c: ", "passage": "p: "}, "", "", "p: "),
        ({"corpus": "c: ", "document": "d: ", "passage": "p: "}, "", "", "d: "),
        ({"corpus": "c: "}, "corpus", "c: ", "c: "),
    ],
)
async def test_prompts_are_those_that_sentence_transformers_would_take(
    prompts: Mapping[str, str], default: str, query: str, document: str
) -> None:
    runtime = FakeRuntime(outputs=2)
    manifest = toys.bi_encoder_manifest(dimensions=2, prompts=prompts, default_prompt_name=default)
    async with Engine([toys.toy_model(), toys.toy_model(runtime, manifest)], config=CONFIG) as engine:
        await engine.retrieve_and_rerank("bread", ["fox"], first_stage=FirstStage(keep=1))
    rows = {tuple(row[:length]) for batch in runtime.batches for row, length in zip(*_rows_of(batch), strict=True)}
    tokenizer = toys.wordpiece()
    assert rows == {tuple(tokenizer.encode(query + "bread").ids), tuple(tokenizer.encode(document + "fox").ids)}


def _rows_of(batch) -> tuple[list[list[int]], list[int]]:  # type: ignore[no-untyped-def]
    return batch.input_ids.tolist(), batch.lengths.tolist()


@pytest.mark.parametrize("name", ["dot", "euclidean", "manhattan"])
async def test_vectors_are_compared_as_the_checkpoint_says(name: str) -> None:
    manifest = toys.bi_encoder_manifest(dimensions=2)
    manifest.similarity = name
    async with Engine([toys.toy_model(), toys.toy_model(FakeRuntime(outputs=2), manifest)], config=CONFIG) as engine:
        result = await ask(engine, 2)
        query = (await engine.embed([QUERY])).embeddings[0]
        vectors = (await engine.embed(DOCUMENTS)).embeddings
    by_hand = {
        "dot": vectors @ query,
        "euclidean": -np.linalg.norm(vectors - query, axis=1),
        "manhattan": -np.abs(vectors - query).sum(axis=1),
    }[name]
    assert result.indices.tolist() == sorted(np.argsort(-by_hand, kind="stable")[:2].tolist())
    np.testing.assert_allclose(result.first_stage_scores, by_hand[result.indices], rtol=1e-6)


async def test_a_similarity_of_later_times_is_refused() -> None:
    manifest = toys.bi_encoder_manifest()
    manifest.similarity = "angular"
    async with Engine([toys.toy_model(), toys.toy_model(None, manifest)], config=CONFIG) as engine:
        with pytest.raises(WrongModelKind, match="by 'angular'; this version knows cosine, dot, euclidean, manhattan"):
            await ask(engine, 2)


@pytest.mark.parametrize("keep", [0, -1])
def test_none_cannot_be_kept(keep: int) -> None:
    with pytest.raises(InvalidInput, match=f"first_stage.keep: {keep} is not a number of documents; at least 1"):
        FirstStage(keep=keep)


@pytest.mark.parametrize(
    ("stage", "error", "words"),
    [
        ({"model": "other"}, ModelNotFound, "no model 'other' is loaded"),
        ({"model": "scorer"}, WrongModelKind, "model 'scorer' is a cross-encoder: it scores pairs"),
        ({"query_prompt_name": "nope"}, InvalidInput, r"^first_stage\.query_prompt_name: 'nope' is unknown"),
        ({"document_prompt_name": "nope"}, InvalidInput, r"^first_stage\.document_prompt_name: 'nope' is unknown"),
    ],
)
async def test_a_first_stage_that_cannot_be_is_told_by_its_field(
    engine: Engine, stage: Mapping[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await ask(engine, 1, **stage)
    statistics = engine.statistics().models["embedder"].vector_cache
    assert statistics is not None
    assert statistics.misses == 0, "it was refused before it cost anything"


@pytest.mark.parametrize(
    ("query", "documents", "words"),
    [
        (QUERY, [], "^documents: empty; give at least one"),
        (QUERY, ["a", None], r"^documents\[1\]: expected text, got NoneType"),
        (QUERY, ["a", "\ud800"], r"^documents\[1\]: not valid Unicode"),
        ("\ud800", ["a"], "^query: not valid Unicode"),
        (QUERY, ["a", TokenIds([1])], r"^documents\[1\]: token ids belong to the vocabulary of one model"),
        (TokenIds([1]), ["a"], "^query: token ids belong"),
    ],
)
async def test_texts_that_cannot_be_are_told_by_their_place(
    engine: Engine, query: str, documents: list[str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await engine.retrieve_and_rerank(query, documents, first_stage=FirstStage(keep=1))


async def test_a_document_that_the_cross_encoder_refuses_is_told_by_its_place_among_all(engine: Engine) -> None:
    query = "bake bread " * 40
    documents = ["the dog", query, "prices", query, "flour"]
    options = ScoreOptions(truncation=Truncation.ERROR)
    with pytest.raises(InvalidInput, match=r"^documents\[1\]: \d+ tokens with special tokens exceed"):
        await engine.retrieve_and_rerank(query, documents, first_stage=NEAREST_IS_EQUAL, options=options)


def refusing(runtime: FakeRuntime | None = None) -> Model:
    """A bi-encoder that puts no token around a text, and so refuses one without any."""
    tokenizer, manifest = toys.wordpiece(), toys.bi_encoder_manifest()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    costs = toys.linear_costs(Ladder.up_to(64), fixed_s=1e-6, token_s=1e-7)
    runtime = runtime or FakeRuntime(outputs=4)
    return build_model(manifest, TextEncoder(tokenizer, rules_of(manifest)), runtime, config=CONFIG, costs=costs)


async def test_a_document_that_the_bi_encoder_refuses_is_told_by_its_place_among_all() -> None:
    async with Engine([toys.toy_model(), refusing()], config=CONFIG) as engine:
        for known in ([], ["dog"], ["dog", "bread"]):
            if known:
                await ask(engine, 1, known)
            with pytest.raises(InvalidInput, match=r"^documents\[3\]: no token is left of it"):
                await ask(engine, 1, ["dog", "dog", "bread", "", "flour", ""])
        with pytest.raises(InvalidInput, match=r"^query: no token is left of it"):
            await engine.retrieve_and_rerank("", ["dog"], first_stage=FirstStage(keep=1))


@pytest.mark.parametrize(("max_length", "words"), [(65, "at most 64"), (3, "leaves no room for text; at least 4")])
async def test_a_length_that_the_cross_encoder_refuses_is_told_before_anything_runs(
    max_length: int, words: str
) -> None:
    runtime = FakeRuntime(outputs=4)
    async with Engine([toys.toy_model(), toys.toy_model(runtime, toys.bi_encoder_manifest())], config=CONFIG) as engine:
        runtime.batches.clear()
        with pytest.raises(InvalidInput, match=f"^max_length: {max_length} .*{words}"):
            await engine.retrieve_and_rerank(
                QUERY, DOCUMENTS, first_stage=FirstStage(keep=1), options=ScoreOptions(max_length=max_length)
            )
        assert runtime.batches == []
        assert engine.statistics().models["toy-embedder"].vector_cache == CacheStatistics(
            limit_bytes=CONFIG.vector_cache_bytes
        )


async def test_whenever_a_caller_leaves_it_is_a_cancellation_also_beside_an_error() -> None:
    """The bi-encoder refuses a document a few steps of the event loop after the call, about when the caller leaves."""
    ended = set()
    async with Engine([toys.toy_model(), refusing()], config=CONFIG) as engine:
        for steps in [*range(40)] * 5:
            task = asyncio.create_task(ask(engine, 1, ["dog", ""]))
            for _ in range(steps):
                await asyncio.sleep(0)
            expected = asyncio.CancelledError if task.cancel() else InvalidInput
            with pytest.raises(expected):
                await task
            ended.add(expected)
        with pytest.raises(InvalidInput):
            await ask(engine, 1, ["dog", ""])
        assert engine.statistics().open_requests == engine.statistics().queued_rows == 0
    assert asyncio.CancelledError in ended
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0, "a timeout around the call would take that for its caller's"


async def test_one_of_several_bi_encoders_must_be_named() -> None:
    embedders = [toys.toy_model(None, toys.bi_encoder_manifest(name)) for name in ("first", "second")]
    async with Engine([toys.toy_model(), *embedders], config=CONFIG) as engine:
        with pytest.raises(InvalidInput, match=r"^first_stage\.model: empty, but there are several of kind bi-encoder"):
            await ask(engine, 1)
        assert (await ask(engine, 1, model="second")).first_stage.model == "second"


async def test_several_labels_give_no_one_score_and_nothing_is_embedded_for_them() -> None:
    runtime = FakeRuntime(outputs=4)
    classifier = toys.toy_model(None, toys.cross_encoder_manifest("nli", labels=["no", "maybe", "yes"]))
    embedder = toys.toy_model(runtime, toys.bi_encoder_manifest())
    async with Engine([classifier, embedder], config=CONFIG) as engine:
        with pytest.raises(WrongModelKind, match=r"'nli' has 3 labels \(no, maybe, yes\)"):
            await ask(engine, 1)
    assert runtime.batches == []


async def test_priority_and_deadline_go_for_both_stages(
    packages: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Priority, float | None]] = []
    serve = Calls.serve

    async def note(calls: Calls, call: Call, accept: Accept = nullcontext) -> Float32Array:
        asked.append((call.priority, call.timeout_s))
        return await serve(calls, call, accept)

    monkeypatch.setattr(Calls, "serve", note)
    async with await Engine.open(*packages, config=CONFIG) as engine:
        await engine.retrieve_and_rerank(
            QUERY,
            DOCUMENTS,
            first_stage=FirstStage(keep=2),
            options=ScoreOptions(priority=Priority.LOW, activation=Activation.SIGMOID),
            timeout_s=3600,
        )
    assert [priority for priority, _ in asked] == [Priority.LOW] * 3
    first, second, last = [timeout_s for _, timeout_s in asked]
    assert first == second == 3600
    assert last is not None
    assert last < 3600, "what the first stage took is gone"


class Gated:
    """An engine with one worker whose models run when their gates are open."""

    def __init__(self) -> None:
        self.gates = {"toy": threading.Event(), "toy-embedder": threading.Event()}
        self.runtimes = {
            "toy": FakeRuntime(gate=self.gates["toy"]),
            "toy-embedder": FakeRuntime(outputs=4, gate=self.gates["toy-embedder"]),
        }
        models = [
            toys.toy_model(self.runtimes["toy"]),
            toys.toy_model(self.runtimes["toy-embedder"], toys.bi_encoder_manifest()),
        ]
        self.engine = Engine(models, config=EngineConfig(workers=1, probe_interval_s=3600))

    async def until_running(self, model: str) -> None:
        """Returns when the model's first batch is inside."""
        await asyncio.to_thread(self.runtimes[model].started.acquire)

    def start(self, timeout_s: float | None = None) -> asyncio.Task[StagedResult]:
        stage = FirstStage(keep=2)
        return asyncio.create_task(
            self.engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=stage, timeout_s=timeout_s)
        )

    def open(self, *models: str) -> None:
        for model in models or self.gates:
            self.gates[model].set()


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    setup = Gated()
    yield setup
    setup.open()
    await setup.engine.close()


async def reach(gated: Gated, stage: str) -> None:
    """Until the stage's model runs."""
    if stage == "toy":
        gated.open("toy-embedder")
    await gated.until_running(stage)


@pytest.mark.parametrize("stage", ["toy-embedder", "toy"])
async def test_one_deadline_ends_either_stage_and_nothing_stays_behind(gated: Gated, stage: str) -> None:
    if stage == "toy":
        gated.open("toy-embedder")
    with pytest.raises(DeadlineExceeded):
        await gated.start(timeout_s=0.1)
    statistics = gated.engine.statistics()
    assert (statistics.queued_rows, statistics.open_requests) == (0, 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (10, r"the first stage alone took 10\.000 s; allow more time"),
        (3, r"the answer would take about .* the deadline is in 2\.000 s.* \(the first stage took 3\.000 s\)"),
        (0, r"the answer would take about .* the deadline is in 5\.000 s"),
    ],
)
async def test_what_the_first_stage_took_is_gone_for_the_second(seconds: float, words: str) -> None:
    clock, scorer = SimClock(), FakeRuntime()
    embedder = FakeRuntime(outputs=4, on_run=lambda batch: clock.advance(seconds))
    models = [toys.toy_model(scorer, token_s=10.0), toys.toy_model(embedder, toys.bi_encoder_manifest())]
    async with Engine(models, config=CONFIG, clock=clock) as engine:
        await engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=FirstStage(keep=2))
        scorer.batches.clear()
        with pytest.raises(DeadlineExceeded, match=words):  # only the query is embedded: one run
            await engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=FirstStage(keep=2), timeout_s=5)
    assert scorer.batches == []


async def test_a_deadline_that_has_passed_is_told(engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded, match=r"timeout_s: 0\.0 leaves no time"):
        await engine.retrieve_and_rerank(QUERY, DOCUMENTS, first_stage=FirstStage(keep=2), timeout_s=0.0)


@pytest.mark.parametrize("stage", ["toy-embedder", "toy"])
async def test_a_caller_that_leaves_takes_its_work_along(gated: Gated, stage: str) -> None:
    task = gated.start()
    await reach(gated, stage)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    statistics = gated.engine.statistics()
    assert (statistics.queued_rows, statistics.open_requests) == (0, 0)
    gated.open()
    assert len((await gated.start()).scores) == 2


@pytest.mark.parametrize("stage", ["toy-embedder", "toy"])
async def test_a_drain_lets_both_stages_of_what_was_accepted_finish(gated: Gated, stage: str) -> None:
    task = gated.start()
    await reach(gated, stage)
    assert gated.engine.statistics().open_requests == 1
    drained = asyncio.create_task(gated.engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="draining"):
        await gated.start()
    with pytest.raises(NotReady, match="draining"):
        await gated.engine.embed([QUERY])
    assert not drained.done()
    gated.open()
    await drained
    assert len(task.result().scores) == 2


async def test_closing_fails_a_request_between_its_stages(gated: Gated) -> None:
    task = gated.start()
    await gated.until_running("toy-embedder")
    closing = asyncio.create_task(gated.engine.close())
    with pytest.raises(NotReady):
        await task
    gated.open()
    await closing


@pytest.mark.parametrize(("stage", "words"), [("toy-embedder", "model 'toy-embedder' failed"), ("toy", "'toy' failed")])
async def test_a_model_that_fails_is_named_and_the_other_stays_healthy(gated: Gated, stage: str, words: str) -> None:
    gated.open()
    gated.runtimes[stage].broken = True
    with pytest.raises(EngineFault, match=words):
        await gated.start()
    health = {name: model.healthy for name, model in gated.engine.statistics().models.items()}
    assert health == {name: name != stage for name in ("toy", "toy-embedder")}
    gated.runtimes[stage].broken = False
    assert len((await gated.start()).scores) == 2
    assert all(model.healthy for model in gated.engine.statistics().models.values())


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30), st.integers(1, 40))
def test_the_nearest_are_the_first_of_a_stable_sort(similarities: list[float], keep: int) -> None:
    expected = sorted(range(len(similarities)), key=lambda index: (-similarities[index], index))[:keep]
    assert nearest(np.array(similarities, np.float32), keep).tolist() == sorted(expected)
