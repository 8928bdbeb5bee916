"""Vectors over the wire are the engine's own, in every encoding, for texts and for token ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pairwire.client import AsyncClient, ClientOptions, InvalidInput
from pairwire.server.config import RequestLimits
from pairwire.server.engine import EmbedOptions, Engine, SparseOptions
from pairwire.server.engine.outputs.vectors import to_bits, to_int8
from pairwire.v1 import embedding_pb2, model_pb2, scoring_pb2
from tests.server import serving, toy_packages
from tests.server.engine import toys

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = ["how do I bake bread", "mix flour and water", "the dog runs", "", "the lazy dog"]


def tokenised(text: str) -> scoring_pb2.TokenIds:
    return scoring_pb2.TokenIds(ids=toys.wordpiece().encode(text, add_special_tokens=False).ids)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    scorer_package: Path, embedder_package: Path, cut_embedder_package: Path, sparse_package: Path
) -> AsyncIterator[serving.Served]:
    async with serving.serve(scorer_package, embedder_package, cut_embedder_package, sparse_package) as served:
        yield served


@pytest.fixture
def engine(served: serving.Served) -> Engine:
    return served.application.engine


async def embed(served: serving.Served, dtype: str = "<f4", **fields: object) -> np.ndarray:
    request = embedding_pb2.EmbedRequest(**{"model": "embedder", "texts": TEXTS, **fields})
    block = (await served.embedding.Embed(request)).embeddings
    assert block.encoding == (request.encoding or embedding_pb2.ENCODING_FLOAT32)
    return np.frombuffer(block.data, dtype).reshape(block.rows, -1)


async def test_vectors_are_the_engines_in_every_encoding(served: serving.Served, engine: Engine) -> None:
    vectors = (await engine.embed(TEXTS, model="embedder")).embeddings
    manifest = engine.models["embedder"].manifest
    for encoding, dtype, expected in (
        (embedding_pb2.ENCODING_UNSPECIFIED, "<f4", vectors),
        (embedding_pb2.ENCODING_FLOAT32, "<f4", vectors),
        (embedding_pb2.ENCODING_FLOAT16, "<f2", vectors.astype(np.float16)),
        (embedding_pb2.ENCODING_INT8, "i1", to_int8(vectors, manifest.int8_low, manifest.int8_high)),
        (embedding_pb2.ENCODING_BINARY, "u1", to_bits(vectors)),
    ):
        assert np.array_equal(await embed(served, dtype, encoding=encoding), expected)
    assert len(np.unique(await embed(served, "i1", encoding=embedding_pb2.ENCODING_INT8))) > 20


async def test_vectors_are_cut_before_they_are_normalised_and_quantised(served: serving.Served) -> None:
    whole = await embed(served)
    cut = await embed(served, dimensions=3)
    assert np.array_equal(cut, whole[:, :3])
    unit = await embed(served, dimensions=3, normalize=True)
    lengths = np.linalg.norm(unit, axis=1)
    assert lengths == pytest.approx(np.ones(len(TEXTS)))
    assert unit * np.linalg.norm(cut, axis=1, keepdims=True) == pytest.approx(cut, rel=1e-5, abs=1e-7)
    assert np.array_equal(await embed(served, normalize=False), whole)
    whole_int8 = await embed(served, "i1", encoding=embedding_pb2.ENCODING_INT8)
    assert np.array_equal(
        await embed(served, "i1", encoding=embedding_pb2.ENCODING_INT8, dimensions=3), whole_int8[:, :3]
    )
    for normalize in (True, False):
        bits = await embed(served, "u1", encoding=embedding_pb2.ENCODING_BINARY, dimensions=3, normalize=normalize)
        assert np.array_equal(bits, to_bits(cut))


async def test_a_checkpoint_may_cut_its_vectors_unless_it_is_asked_for_others(served: serving.Served) -> None:
    whole = await embed(served, model="cut", dimensions=8)
    assert whole.shape == (len(TEXTS), 8)
    assert np.array_equal(await embed(served, model="cut"), whole[:, :4])
    assert np.array_equal(await embed(served, model="cut", dimensions=6), whole[:, :6])


async def test_a_prompt_may_be_named_or_given_or_taken_away(served: serving.Served, engine: Engine) -> None:
    expected = (await engine.embed([f"query: {text}" for text in TEXTS], model="embedder")).embeddings
    for fields in ({"prompt_name": "query"}, {"prompt": "query: "}):
        assert np.array_equal(await embed(served, **fields), expected)
        here = await engine.embed(TEXTS, model="embedder", options=EmbedOptions(**fields))
        assert np.array_equal(here.embeddings, expected)
    assert np.array_equal(await embed(served, prompt=""), await embed(served))
    assert not np.array_equal(await embed(served), expected)


async def test_token_ids_give_what_their_texts_give(served: serving.Served) -> None:
    ids = [tokenised(text) for text in TEXTS]
    assert np.array_equal(await embed(served, texts=[], token_ids=ids), await embed(served))
    request = embedding_pb2.EmbedSparseRequest(token_ids=ids)
    by_ids = await served.embedding.EmbedSparse(request)
    by_text = await served.embedding.EmbedSparse(embedding_pb2.EmbedSparseRequest(texts=TEXTS))
    assert by_ids.embeddings == by_text.embeddings
    long = scoring_pb2.TokenIds(ids=[7] * 200)
    answer = await served.embedding.Embed(embedding_pb2.EmbedRequest(model="embedder", token_ids=[*ids, long]))
    assert list(answer.usage.truncated_inputs) == [len(TEXTS)]


async def test_sparse_vectors_are_the_engines(served: serving.Served, engine: Engine) -> None:
    for most in (0, 5):
        expected = await engine.embed_sparse(TEXTS, options=SparseOptions(max_active_dims=most or None))
        request = embedding_pb2.EmbedSparseRequest(texts=TEXTS, max_active_dims=most)
        answer = await served.embedding.EmbedSparse(request)
        block = answer.embeddings
        assert np.array_equal(np.frombuffer(block.indices, "<u4"), expected.indices)
        assert np.array_equal(np.frombuffer(block.values, "<f4"), expected.values)
        assert (list(block.counts), block.dimensions) == (expected.counts.tolist(), 300)
        assert (answer.model, answer.usage.tokens) == ("splade", expected.usage.tokens)
        assert max(block.counts) == most or max(block.counts) > 50
    prompted = await engine.embed_sparse([f"query: {text}" for text in TEXTS])
    for fields in ({"prompt_name": "query"}, {"prompt": "query: "}):
        answer = await served.embedding.EmbedSparse(embedding_pb2.EmbedSparseRequest(texts=TEXTS, **fields))
        assert answer.embeddings.values == prompted.values.tobytes()


async def test_the_manifest_tells_the_ranges(served: serving.Served) -> None:
    answer = await served.models.GetModel(model_pb2.GetModelRequest(model="embedder"))
    assert (list(answer.manifest.int8_low), list(answer.manifest.int8_high)) == ([-20] * 8, [20] * 8)


async def test_a_sparse_encoder_alone_makes_the_embedding_service_healthy(sparse_package: Path) -> None:
    async with serving.serve(sparse_package) as alone:
        health = health_pb2_grpc.HealthStub(alone.channel)
        for service, status in (
            ("pairwire.v1.EmbeddingService", health_pb2.HealthCheckResponse.SERVING),
            ("pairwire.v1.ScoringService", health_pb2.HealthCheckResponse.NOT_SERVING),
        ):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == status
        with pytest.raises(grpc.aio.AioRpcError, match="no model of kind bi-encoder is loaded"):
            await alone.embedding.Embed(embedding_pb2.EmbedRequest(texts=["t"], encoding=embedding_pb2.ENCODING_INT8))


async def refused(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a call of grpc.aio is awaitable
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow(embedder_package: Path, sparse_package: Path) -> AsyncIterator[serving.Served]:
    """A server whose answers are 8 KiB at most."""
    settings = serving.config(embedder_package, sparse_package, limits=RequestLimits(max_answer_bytes=8192))
    async with serving.serve(settings=settings) as served:
        yield served


async def test_vectors_that_no_answer_would_hold_are_refused_with_how_many_would_fit(narrow: serving.Served) -> None:
    for encoding, most, size in (
        (embedding_pb2.ENCODING_UNSPECIFIED, 97, 98 * 42),
        (embedding_pb2.ENCODING_INT8, 227, 228 * 18),
    ):
        request = embedding_pb2.EmbedRequest(texts=["a"] * most, encoding=encoding)
        raw = (await narrow.embedding.Embed(request)).SerializeToString()
        assert 8192 - 4096 - 42 - 10 * most < len(raw) < 8192
        words = await refused(
            narrow.embedding.Embed(embedding_pb2.EmbedRequest(texts=["a"] * (most + 1), encoding=encoding))
        )
        assert words.startswith(f"texts: {most + 1} vectors of 8 numbers (")
        assert f"take {size} bytes, more than an answer may have (--max-answer-bytes 8192)" in words
        assert f"send at most {most} such texts in one request, or ask for fewer dimensions" in words
    assert await narrow.embedding.Embed(embedding_pb2.EmbedRequest(texts=["a"] * 98, dimensions=7))
    ids = embedding_pb2.EmbedRequest(token_ids=[tokenised("a")] * 98)
    assert (await refused(narrow.embedding.Embed(ids))).startswith("token_ids: 98 vectors")
    too_many = embedding_pb2.EmbedRequest(texts=["a"] * 98, dimensions=9)
    assert (await refused(narrow.embedding.Embed(too_many))).startswith("texts: 98 vectors of 8 numbers")
    assert (await refused(narrow.embedding.Embed(embedding_pb2.EmbedRequest(texts=["a"], dimensions=9)))).startswith(
        "dimensions: 9 is not between 1 and 8"
    )


async def test_weights_that_no_answer_would_hold_are_refused_with_what_to_do(narrow: serving.Served) -> None:
    request = embedding_pb2.EmbedSparseRequest(texts=["a b c"] * 29, max_active_dims=16)
    assert sum((await narrow.embedding.EmbedSparse(request)).embeddings.counts) == 29 * 16
    request.texts.append("a b c")
    words = await refused(narrow.embedding.EmbedSparse(request))
    assert words.startswith("texts: 30 texts have 480 weights, which take 4140 bytes, more than an answer may have")
    assert "(--max-answer-bytes 8192); send at most 29 such texts in one request, or keep the largest" in words
    request.max_active_dims = 15
    assert await narrow.embedding.EmbedSparse(request)
    request = embedding_pb2.EmbedSparseRequest(token_ids=[tokenised("a b c")] * 100)
    assert (await refused(narrow.embedding.EmbedSparse(request))).startswith("token_ids: 100 texts have")


async def test_what_a_client_does_not_take_is_told_with_what_to_do(served: serving.Served) -> None:
    options = ClientOptions(max_receive_bytes=1000)
    async with AsyncClient(f"localhost:{served.application.port}", options=options) as client:
        with pytest.raises(
            InvalidInput, match=r"an answer has \d+ bytes, and this client takes 1000; send less at once"
        ):
            await client.embed(TEXTS * 20, model="embedder")


async def test_what_float16_does_not_have_is_told_and_not_sent_as_infinite(tmp_path: Path) -> None:
    async with serving.serve(toy_packages.write_bi_encoder(tmp_path / "large", scale=1e5)) as served:
        half = {"model": "", "encoding": embedding_pb2.ENCODING_FLOAT16}
        assert np.abs(await embed(served, model="")).max() > 65504
        words = await refused(served.embedding.Embed(embedding_pb2.EmbedRequest(texts=TEXTS, **half)))
        assert words.startswith("texts[0]: its vector has the number ")
        assert "float16 ends at 65504; ask for float32, or for vectors of unit length (normalize)" in words
        ids = embedding_pb2.EmbedRequest(token_ids=[tokenised(TEXTS[0])], **half)
        assert (await refused(served.embedding.Embed(ids))).startswith("token_ids[0]: its vector")
        assert np.isfinite(await embed(served, "<f2", normalize=True, **half)).all()


class Watched(ThreadPoolExecutor):
    """The loop's own threads, which remember what they were given."""

    def __init__(self) -> None:
        super().__init__(2)
        self.given: list[str] = []

    def submit(self, work: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:
        self.given.append(work.args[0].__name__)  # type: ignore[attr-defined]  # a partial of Context.run: see to_thread
        return super().submit(work, *args, **kwargs)


async def test_what_is_large_is_worked_on_beside_the_event_loop(tmp_path: Path, sparse_package: Path) -> None:
    loop, threads = asyncio.get_running_loop(), Watched()
    package = toy_packages.write_bi_encoder(tmp_path / "wide", dimensions=2000)
    async with serving.serve(package, sparse_package) as served:
        loop.set_default_executor(threads)
        for count, given in ((1, []), (40, ["shape_vectors", "encode_embeddings"])):
            texts = [f"the dog {number}" for number in range(count)]
            await served.embedding.Embed(embedding_pb2.EmbedRequest(texts=texts, normalize=True))
            assert threads.given == given
        threads.given.clear()
        for count, given in ((1, []), (900, ["to_sparse", "encode_sparse"])):
            texts = [f"the dog {number}" for number in range(count)]
            await served.embedding.EmbedSparse(embedding_pb2.EmbedSparseRequest(texts=texts))
            assert threads.given == given
        threads.given.clear()
        for size, given in ((100, []), (70_000, ["large", "_texts"])):
            ids = scoring_pb2.TokenIds(ids=[200] * size)
            await served.embedding.Embed(embedding_pb2.EmbedRequest(token_ids=[ids] * 2))
            assert threads.given == given
    loop.set_default_executor(ThreadPoolExecutor())
    threads.shutdown()
