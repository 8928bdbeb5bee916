"""Queries of a sparse encoder that are looked up, over the wire: no graph runs, and all else is as for documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from pairwire.client import AsyncClient, InvalidInput
from pairwire.server.engine import Engine, SparseOptions
from pairwire.server.engine.kinds import InputType
from pairwire.server.errors import PackageInvalid
from pairwire.v1 import embedding_pb2, manifest_pb2, model_pb2, scoring_pb2
from tests.server import serving, toy_packages
from tests.server.engine import toys

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = ["the dog runs", "", "dog dog the", "mix flour and water and bake the bread " * 3]
QUERY, DOCUMENT = embedding_pb2.INPUT_TYPE_QUERY, embedding_pb2.INPUT_TYPE_DOCUMENT


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[serving.Served]:
    directory = tmp_path_factory.mktemp("routed")
    package = toy_packages.write_routed_encoder(directory / "routed", default=DOCUMENT)
    plain = toy_packages.write_sparse_encoder(directory / "plain", name="plain")
    async with serving.serve(package, plain) as served:
        yield served


async def rows(served: serving.Served, **fields: object) -> list[dict[int, float]]:
    request = embedding_pb2.EmbedSparseRequest(**{"model": "routed", "texts": TEXTS, **fields})
    block = (await served.embedding.EmbedSparse(request)).embeddings
    indices, values = np.frombuffer(block.indices, "<u4"), np.frombuffer(block.values, "<f4")
    ends = np.cumsum(block.counts)
    return [
        dict(zip(indices[end - count : end].tolist(), values[end - count : end].tolist(), strict=True))
        for end, count in zip(ends, block.counts, strict=True)
    ]


def ids(text: str) -> list[int]:
    return list(toys.wordpiece().encode(text, add_special_tokens=False).ids)


def looked_up(text: str) -> dict[int, float]:
    """Each distinct token once, with its own weight; ids are in ascending order on the wire."""
    kept = sorted(set(ids(text)[: toy_packages.QUERY_TOKENS]))
    return {each: float(each) for each in kept if each}


async def test_queries_are_looked_up_and_documents_are_read(served: serving.Served) -> None:
    assert await rows(served, input_type=QUERY) == [looked_up(text) for text in TEXTS]
    documents = await rows(served, input_type=DOCUMENT)
    assert documents == await rows(served)  # the default
    assert documents != await rows(served, input_type=QUERY)


async def test_what_was_cut_is_told_by_the_limit_of_queries(served: serving.Served) -> None:
    request = embedding_pb2.EmbedSparseRequest(model="routed", texts=TEXTS, input_type=QUERY)
    answer = await served.embedding.EmbedSparse(request)
    assert list(answer.usage.truncated_inputs) == [3]
    assert (answer.timing.compute_us, answer.usage.padded_tokens) == (0, 0)


async def test_the_largest_weights_alone_and_token_ids(served: serving.Served) -> None:
    (best,) = await rows(served, texts=TEXTS[:1], input_type=QUERY, max_active_dims=1)
    assert best == dict([max(looked_up(TEXTS[0]).items())])
    given = [scoring_pb2.TokenIds(ids=ids(text)) for text in TEXTS]
    assert await rows(served, texts=[], token_ids=given, input_type=QUERY) == [looked_up(text) for text in TEXTS]


async def test_to_a_model_with_one_way_it_means_nothing(served: serving.Served) -> None:
    plain = await rows(served, model="plain")
    assert await rows(served, model="plain", input_type=QUERY) == plain
    assert await rows(served, model="plain", input_type=DOCUMENT) == plain


async def test_the_clients_say_what_texts_are(served: serving.Served) -> None:
    async with AsyncClient(f"localhost:{served.application.port}") as client:
        found = await client.embed_sparse(TEXTS, model="routed", input_type="query")
        assert [dict(zip(a.tolist(), b.tolist(), strict=True)) for a, b in found.rows()] == list(map(looked_up, TEXTS))
        with pytest.raises(InvalidInput, match="input_type: 'passage' is unknown; one of query, document"):
            await client.embed_sparse(TEXTS, model="routed", input_type="passage")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_type": 7}, "7 is unknown; one of INPUT_TYPE_UNSPECIFIED (0)"),
        ({"input_type": QUERY, "max_length": 9}, "at most 8"),
        ({"input_type": QUERY, "truncation": scoring_pb2.TRUNCATION_ERROR}, "exceed max_length 8"),
        ({"input_type": QUERY, "prompt_name": "web"}, "'web' is unknown"),
        ({"input_type": QUERY, "texts": []}, "give at least one"),
    ],
)
async def test_bad_input_is_named(fields: dict[str, object], message: str, served: serving.Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rows(served, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in (caught.value.details() or "")


async def test_without_a_default_a_request_must_say(tmp_path: Path) -> None:
    package = toy_packages.write_routed_encoder(tmp_path / "routed")
    async with serving.serve(package) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rows(served)
        assert "input_type: not set, and model 'routed' reads queries" in (caught.value.details() or "")
        assert await rows(served, input_type=QUERY) == [looked_up(text) for text in TEXTS]
        said = await served.models.GetModel(model_pb2.GetModelRequest())
        assert said.manifest.query_table.max_length == toy_packages.QUERY_TOKENS


async def test_long_lists_of_queries_are_looked_up_beside_the_event_loop(served: serving.Served) -> None:
    texts = [f"{text} {at}" for at in range(400) for text in TEXTS]
    engine: Engine = served.application.engine
    found = await engine.embed_sparse(texts, model="routed", options=SparseOptions(input_type=InputType.QUERY))
    assert len(found.counts) == len(texts)
    assert int(found.counts.sum()) == len(found.indices) == len(found.values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda package: (package / "queries.bin").unlink(), "queries.bin: missing, but the manifest lists it"),
        (lambda package: (package / "queries.json").write_text("{}"), "queries.json: sha256 is"),
        (lambda package: _point(package, file="../queries.bin"), "file '../queries.bin' is not a plain file name"),
        (lambda package: _point(package, max_length=0), "max_length 0 is not between 1 and"),
        (lambda package: _write(package, np.full(3, 1, "<f4")), "12 bytes, expected a float32 for each of"),
        (lambda package: _write(package, np.full(_size(), -1, "<f4")), "must be finite and not below 0"),
    ],
)
async def test_a_damaged_table_is_refused(damage: object, message: str, tmp_path: Path) -> None:
    package = toy_packages.write_routed_encoder(tmp_path / "routed")
    damage(package)  # type: ignore[operator]
    with pytest.raises(PackageInvalid) as caught:
        await Engine.open(package)
    assert message in str(caught.value)


def _size() -> int:
    return int(toys.wordpiece().get_vocab_size())


def _point(package: Path, **fields: object) -> None:
    def change(manifest: manifest_pb2.ModelManifest) -> None:
        for name, value in fields.items():
            setattr(manifest.query_table, name, value)

    toy_packages.change_manifest(package, change)


def _write(package: Path, weights: np.ndarray) -> None:
    from pairwire.server.package import sha256_of

    weights.tofile(package / "queries.bin")
    _point(package, sha256=sha256_of(package / "queries.bin"))
