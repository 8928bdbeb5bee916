"""Both clients ask for vectors: encodings, dimensions, sparse ones, prompts, token ids, and answers that do not fit."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from pairwire.client import InvalidInput, ServerFault, SplitLimits, TokenIds
from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.client.requests import Part, embed_parts, score_parts, sparse_parts
from pairwire.v1 import embedding_pb2, scoring_pb2
from tests.client.conftest import Connect, EitherClient
from tests.client.fake_server import DIMENSIONS_OF_SPARSE, FakeServer, bad_request, score_of, vector_of, weights_of

TEXTS = [f"text {index}" for index in range(10)]
VECTORS = np.stack([vector_of(text) for text in TEXTS])


def ids(text: str) -> TokenIds:
    """What the fake server reads as this text."""
    return TokenIds(map(ord, text))


@pytest.mark.parametrize(
    ("encoding", "dtype", "expected"),
    [
        ("float32", np.float32, VECTORS),
        ("float16", np.float32, VECTORS.astype(np.float16)),
        ("int8", np.int8, np.clip(VECTORS - 100, -128, 127)),
        ("binary", np.uint8, np.packbits(VECTORS > 0.5, axis=1)),
    ],
)
async def test_every_encoding_arrives_whole_and_in_order(
    encoding: str, dtype: type, expected: np.ndarray, client: EitherClient, server: FakeServer
) -> None:
    result = await client.call("embed", TEXTS, encoding=encoding)
    assert result.embeddings.dtype == dtype
    assert np.array_equal(result.embeddings, expected.astype(dtype))
    assert (result.dimensions, len(result), result.timing.requests) == (3, 10, 3)
    parts = await client.collect("embed_stream", TEXTS, encoding=encoding)
    assert np.array_equal(np.concatenate([part.embeddings for part in parts]), result.embeddings)
    one = await client.call("embed", TEXTS[:1], encoding=encoding)
    one.embeddings[:] = 0  # the caller's own: a view of the answer would refuse


async def test_options_of_vectors_travel(client: EitherClient, server: FakeServer) -> None:
    result = await client.call("embed", ["a", "bc"], prompt="find: ", dimensions=2, normalize=True)
    cut = np.stack([vector_of("find: a"), vector_of("find: bc")])[:, :2]
    assert result.embeddings == pytest.approx(cut / np.linalg.norm(cut, axis=1, keepdims=True))
    assert result.dimensions == 2
    await client.call("embed", ["a"])
    given, left_out = server.script.requests
    assert isinstance(given, embedding_pb2.EmbedRequest)
    assert (given.prompt, given.HasField("prompt_name"), given.dimensions, given.normalize) == (
        "find: ",
        False,
        2,
        True,
    )
    assert not any(left_out.HasField(name) for name in ("prompt", "prompt_name", "normalize"))  # type: ignore[arg-type]


async def test_prompts_travel_with_every_kind_of_request(client: EitherClient, server: FakeServer) -> None:
    for options in ({"prompt": ""}, {"prompt_name": "query"}):
        await client.call("score", [("a", "b")], **options)
        await client.call("score_documents", "q", ["d"], **options)
        await client.collect("score_stream", [("a", "b")], **options)
        await client.call("rerank", "q", ["d"], **options)
        await client.call("embed", ["t"], **options)
        await client.collect("embed_stream", ["t"], **options)
        await client.call("embed_sparse", ["t"], **options)
        await client.collect("embed_sparse_stream", ["t"], **options)
    sent = [(request.HasField("prompt"), request.prompt_name) for request in server.script.requests]  # type: ignore[attr-defined]
    assert sent == [(True, "")] * 8 + [(False, "query")] * 8


async def test_sparse_vectors_come_back_whole(client: EitherClient, server: FakeServer) -> None:
    texts = ["abca", "", "b", "zz", "abc"]
    result = await client.call("embed_sparse", texts)
    assert (result.indices.dtype, result.values.dtype, result.counts.dtype) == (np.uint32, np.float32, np.uint32)
    assert (result.counts.tolist(), result.shape) == ([3, 0, 1, 1, 3], (5, DIMENSIONS_OF_SPARSE))
    for text, (indices, values) in zip(texts, result.rows(), strict=True):
        assert dict(zip(indices.tolist(), values.tolist(), strict=True)) == weights_of(text)
    dense = np.zeros(result.shape, np.float32)
    for row, text in enumerate(texts):
        for index, value in weights_of(text).items():
            dense[row, index] = value
    assert np.array_equal(result.to_dense(), dense)
    assert result.offsets.tolist() == [0, 3, 3, 4, 5, 8]
    assert (len(result), result.model, result.timing.requests) == (5, "fake", 2)
    parts = await client.collect("embed_sparse_stream", texts)
    assert np.concatenate([part.values for part in parts]).tolist() == result.values.tolist()
    assert (await client.call("embed_sparse", texts, max_active_dims=2)).counts.tolist() == [2, 0, 1, 1, 2]


async def test_token_ids_go_in_place_of_texts(client: EitherClient, server: FakeServer) -> None:
    texts = ["a", "", "bcd", "e", "f"]
    result = await client.call("embed", [ids(text) for text in texts])
    assert np.array_equal(result.embeddings, np.stack([vector_of(text) for text in texts]))
    sparse = await client.call("embed_sparse", [ids("abca")])
    assert dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True)) == weights_of("abca")
    pairs = [("a", "b"), ("", "c"), ("d", ""), ("e", "f"), ("g", "h")]
    scored = await client.call("score", [(ids(first), ids(second)) for first, second in pairs])
    assert scored.scores.tolist() == [score_of(*pair) for pair in pairs]
    kinds = {request.WhichOneof("input") for request in server.script.requests if hasattr(request, "text_pairs")}
    assert kinds == {"token_id_pairs"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("embed", ["a", ids("b")]), r"^texts\[1\]: token ids after text; make a call of each kind"),
        (("embed", [ids("b"), "a"]), r"^texts\[1\]: text after token ids"),
        (("embed", ["a", 5]), r"^texts\[1\]: expected text \(str\), got int"),
        (("embed", [[5, 6]]), r"^texts\[0\]: expected text \(str\), got list"),
        (("embed_sparse", [ids("b"), ids("c"), "a"]), r"^texts\[2\]: text after token ids"),
        (("embed_sparse", []), r"^texts: at least one is needed"),
        (("embed_sparse", "a"), r"^texts: expected a list, got one str"),
        (("score", [("a", ids("b"))]), r"^pairs\[0\]: one text and one of token ids"),
        (("score", [("a", "b"), (ids("a"), ids("b"))]), r"^pairs\[1\]: token ids after text"),
        (("score", [ids("ab")]), r"^pairs\[0\]: expected two texts, e\.g\. \('a', 'b'\), got TokenIds"),
        (("score_documents", "q", [ids("d")]), r"^documents\[0\]: expected text \(str\); token ids can be scored as"),
        (("rerank", ids("q"), ["d"]), r"^query: expected text \(str\), got TokenIds"),
    ],
)
async def test_what_cannot_be_sent_is_named(
    call: tuple[object, ...], message: str, client: EitherClient, server: FakeServer
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await client.call(*call)  # type: ignore[arg-type]
    assert server.script.requests == []


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "embed",
            {"prompt": "a", "prompt_name": "b"},
            r"^prompt: given together with prompt_name 'b'; give one of them",
        ),
        ("embed_sparse", {"prompt": "", "prompt_name": "b"}, r"^prompt: given together with prompt_name"),
        ("embed", {"prompt": 5}, r"^prompt: expected text \(str\), got int"),
        ("embed", {"prompt": "\ud800"}, r"^prompt: not valid Unicode"),
        ("embed", {"dimensions": 0}, r"^dimensions: 0 is not between 1 and 4294967295"),
        ("embed", {"dimensions": 2.5}, r"^dimensions: expected a whole number, got float"),
        ("embed", {"normalize": "yes"}, r"^normalize: expected True, False or None, got str"),
        ("embed", {"encoding": "int4"}, r"^encoding: 'int4' is unknown; one of float32, float16, int8, binary"),
        ("embed_sparse", {"max_active_dims": 0}, r"^max_active_dims: 0 is not between 1 and"),
    ],
)
async def test_an_option_out_of_range_is_named(
    method: str, options: dict[str, object], message: str, client: EitherClient, server: FakeServer
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await client.call(method, ["a"], **options)
    assert server.script.requests == []


def embeddings(**fields: object) -> embedding_pb2.EmbedResponse:
    whole = {"data": bytes(8), "rows": 1, "dimensions": 2, "encoding": embedding_pb2.ENCODING_FLOAT32, **fields}
    return embedding_pb2.EmbedResponse(embeddings=whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        ({}, embeddings(encoding=embedding_pb2.ENCODING_INT8), "vectors in encoding 3, not 1 as asked"),
        ({}, embeddings(encoding=embedding_pb2.ENCODING_UNSPECIFIED), "vectors in encoding 0, not 1 as asked"),
        ({}, embeddings(data=bytes(7)), "7 bytes as 1 vectors of 2 numbers, encoding 1, for 1 texts"),
        ({"encoding": "float16"}, embeddings(encoding=2), "8 bytes as 1 vectors of 2 numbers, encoding 2"),
        ({"encoding": "int8"}, embeddings(encoding=3), "8 bytes as 1 vectors of 2 numbers, encoding 3"),
        ({"encoding": "binary"}, embeddings(encoding=4, dimensions=65), "8 bytes as 1 vectors of 65 numbers"),
        ({"dimensions": 3}, embeddings(), "1 vectors of 2 numbers, encoding 1, for 1 texts of 3 numbers"),
    ],
)
async def test_vectors_that_were_not_asked_for_are_the_servers_fault(
    options: dict[str, object],
    answer: embedding_pb2.EmbedResponse,
    message: str,
    client: EitherClient,
    server: FakeServer,
) -> None:
    server.script.answer = answer
    with pytest.raises(ServerFault, match=message):
        await client.call("embed", ["a"], **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"counts": [1, 1]}, "2 rows of 2 weights in 4 bytes of indices and 4 of values for 1 texts"),
        ({"counts": [2]}, "1 rows of 2 weights in 4 bytes"),
        ({"values": bytes(3)}, "in 4 bytes of indices and 3 of values"),
        ({"dimensions": 7}, "a weight at 7 of 7 dimensions"),
        ({"counts": [2**32 - 1]}, "1 rows of 4294967295 weights in 4 bytes"),
    ],
)
async def test_sparse_vectors_that_do_not_fit_are_the_servers_fault(
    fields: dict[str, object], message: str, client: EitherClient, server: FakeServer
) -> None:
    whole = {"indices": b"\x07\0\0\0", "values": bytes(4), "counts": [1], "dimensions": 8}
    block = embedding_pb2.SparseEmbeddings(**{**whole, **fields})  # type: ignore[arg-type]
    server.script.answer = embedding_pb2.EmbedSparseResponse(embeddings=block)
    with pytest.raises(ServerFault, match=message):
        await client.call("embed_sparse", ["a"])
    server.script.answer = embedding_pb2.EmbedSparseResponse(embeddings=embedding_pb2.SparseEmbeddings(**whole))  # type: ignore[arg-type]
    assert (await client.call("embed_sparse", ["a"])).indices.tolist() == [7]


async def test_errors_about_token_ids_are_told_by_the_callers_place(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, split=SplitLimits(max_items=4, in_flight=1))
    server.script.failures = deque([None, bad_request("token_ids[1].ids[0]", "out")])
    with pytest.raises(InvalidInput) as caught:
        await client.call("embed", [ids("a")] * 8)
    assert caught.value.field == "texts[5].ids[0]"
    server.script.failures = deque([None, bad_request("token_id_pairs.pairs[2].second.ids[0]", "out")])
    with pytest.raises(InvalidInput) as caught:
        await client.call("score", [(ids("a"), ids("b"))] * 8)
    assert caught.value.field == "pairs[6].second.ids[0]"


def test_requests_of_token_ids_keep_to_the_limits() -> None:
    limits = SplitLimits(max_items=1000, max_bytes=2000)
    for size in (0, 1, 20, 30, 180):
        texts = [TokenIds([2**31 - 1] * size)] * 300
        parts = [
            *embed_parts(texts, EmbedOptions(prompt="p"), limits),
            *sparse_parts(texts, SparseOptions(), limits),
            *score_parts([(text, text) for text in texts], ScoreOptions(), limits),
        ]
        assert max(part.message.ByteSize() for part in parts) <= 2000
        assert sum(part.count for part in parts) == 900
    assert isinstance(parts[-1].message, scoring_pb2.ScoreRequest)


@pytest.mark.parametrize(
    "parts_of",
    [
        lambda text, limits: embed_parts([text], EmbedOptions(), limits),
        lambda text, limits: score_parts([(text, TokenIds([]))], ScoreOptions(), limits),
    ],
    ids=["embed", "score"],
)
def test_a_request_of_many_token_ids_is_never_larger_than_it_was_thought(
    parts_of: Callable[[TokenIds, SplitLimits], Iterator[Part[Any]]],
) -> None:
    text, sizes = TokenIds([2**31 - 1] * 4000), {}
    for max_bytes in range(20_000, 20_080):
        with suppress(InvalidInput):
            sizes[max_bytes] = [part.message.ByteSize() for part in parts_of(text, SplitLimits(max_bytes=max_bytes))]
    assert 0 < len(sizes) < 80
    assert all(size <= max_bytes for max_bytes, (size,) in sizes.items())
