"""tei.v1 as its clients know it: defaults, streams, headers, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from pairwire.foreign import tei_pb2
from tests.server import serving
from tests.server.compat.foreign import tei

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = "the dog runs " * 60


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Code and sentence of a call, or of a stream, that fails."""

    async def to_the_end() -> None:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await to_the_end()
    return caught.value.code(), caught.value.details() or ""


async def test_what_is_too_long_is_an_error_unless_it_may_be_cut(served: serving.Served) -> None:
    embed = tei(served.channel, "Embed")
    code, sentence = await refused(embed(tei_pb2.EmbedRequest(inputs=LONG)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("inputs[0]: 362 tokens with special tokens exceed max_length 64")
    right = await embed(tei_pb2.EmbedRequest(inputs=LONG + "bake", truncate=True))
    left = await embed(
        tei_pb2.EmbedRequest(
            inputs=LONG + "bake", truncate=True, truncation_direction=tei_pb2.TRUNCATION_DIRECTION_LEFT
        )
    )
    assert right.embeddings != left.embeddings
    assert right.metadata.compute_tokens == left.metadata.compute_tokens == 64


async def test_equal_scores_come_in_the_order_that_its_clients_know(served: serving.Served) -> None:
    asked = tei_pb2.RerankRequest(query="test", texts=["test", "other", "test"], return_text=True)
    answer = await tei(served.channel, "Rerank")(asked)
    equal = [rank.index for rank in answer.ranks if rank.text == "test"]
    assert equal == [2, 0]
    assert [rank.score for rank in answer.ranks] == sorted((rank.score for rank in answer.ranks), reverse=True)
    assert (
        not (await tei(served.channel, "Rerank")(tei_pb2.RerankRequest(query="a", texts=["b"])))
        .ranks[0]
        .HasField("text")
    )


async def test_answers_say_what_they_cost_in_headers_too(served: serving.Served) -> None:
    for call, characters in (
        (tei(served.channel, "Embed")(tei_pb2.EmbedRequest(inputs="bake bread")), 10),
        (tei(served.channel, "Rerank")(tei_pb2.RerankRequest(query="ab", texts=["bake bread", "fox"])), 17),
        (tei(served.channel, "Predict")(tei_pb2.PredictRequest(inputs="bake bread")), 10),
    ):
        headers = dict(await call.initial_metadata())
        metadata = (await call).metadata
        assert headers["x-compute-characters"] == str(characters) == str(metadata.compute_chars)
        assert headers["x-compute-tokens"] == str(metadata.compute_tokens)
        assert headers["x-compute-type"] == "cpu"
        for name in ("total", "tokenization", "queue", "inference"):
            assert headers[f"x-{name}-time"] == str(getattr(metadata, f"{name}_time_ns") // 1_000_000)
        assert metadata.total_time_ns >= metadata.inference_time_ns > 0


async def test_streams_keep_order_and_an_error_ends_them_after_the_answers_before_it(served: serving.Served) -> None:
    words = [f"fox {number}" for number in range(200)]
    stream = tei(served.channel, "EmbedStream")
    whole = [answer.embeddings async for answer in stream(tei_pb2.EmbedRequest(inputs=each) for each in words)]
    assert len(whole) == 200
    again = [answer.embeddings async for answer in stream(tei_pb2.EmbedRequest(inputs=each) for each in words[::-1])]
    np.testing.assert_allclose(again, whole[::-1], rtol=1e-5, atol=1e-5)  # in other company, a toy rounds differently
    broken = stream(iter([tei_pb2.EmbedRequest(inputs="a"), tei_pb2.EmbedRequest(), tei_pb2.EmbedRequest(inputs="b")]))
    assert (await broken.read()).embeddings
    assert await broken.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await broken.details() == "inputs: empty; give text"


async def test_who_does_not_read_the_answers_is_read_from_no_more(served: serving.Served) -> None:
    sent = 0

    async def requests() -> Any:
        nonlocal sent
        while True:
            sent += 1
            yield tei_pb2.EmbedSparseRequest(inputs=f"fox {sent} " + "bake bread " * 2000, truncate=True)

    call = tei(served.channel, "EmbedSparseStream")(requests())
    await call.read()
    await serving.eventually(lambda: sent > 10)
    before = -1
    while before != sent:  # it ends when flow control holds the client back
        before = sent
        await asyncio.sleep(0.3)
    assert sent < 5000
    call.cancel()
    await serving.eventually(lambda: served.application.traffic.inside == 0)


@pytest.mark.parametrize(
    ("method", "request_", "code", "sentence"),
    [
        ("Embed", tei_pb2.EmbedRequest(), "INVALID_ARGUMENT", "inputs: empty; give text"),
        ("Embed", tei_pb2.EmbedRequest(inputs="a", dimensions=0), "INVALID_ARGUMENT", "dimensions: 0 is not between"),
        ("Embed", tei_pb2.EmbedRequest(inputs="a", prompt_name="x"), "INVALID_ARGUMENT", "prompt_name: 'x' is unknown"),
        (
            "Rerank",
            tei_pb2.RerankRequest(query="a", texts=["b"], truncation_direction=7),  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "truncation_direction: 7 is unknown; one of TRUNCATION_DIRECTION_RIGHT (0)",
        ),
        ("Rerank", tei_pb2.RerankRequest(query="a"), "INVALID_ARGUMENT", "texts: empty; give at least one"),
        ("Rerank", tei_pb2.RerankRequest(query="a", texts=["b", LONG]), "INVALID_ARGUMENT", "texts[1]: "),
        ("PredictPair", tei_pb2.PredictPairRequest(), "INVALID_ARGUMENT", "inputs: 0 texts; give one, or the two"),
        ("PredictPair", tei_pb2.PredictPairRequest(inputs=["a", LONG]), "INVALID_ARGUMENT", "inputs[1]"),
        ("Decode", tei_pb2.DecodeRequest(), "INVALID_ARGUMENT", "ids: empty"),
        ("Decode", tei_pb2.DecodeRequest(ids=[10**6]), "INVALID_ARGUMENT", "ids[0].ids[0]: 1000000 is outside"),
        ("EmbedAll", tei_pb2.EmbedAllRequest(inputs="a"), "UNIMPLEMENTED", "a vector for each token cannot be had"),
    ],
)
async def test_what_cannot_be_served_is_said_plainly(
    served: serving.Served, method: str, request_: Any, code: str, sentence: str
) -> None:
    found, said = await refused(tei(served.channel, method)(request_))
    assert (found.name, said[: len(sentence)]) == (code, sentence)


async def test_a_rerank_stream_without_a_message_or_with_two_queries_is_a_plain_error(served: serving.Served) -> None:
    stream = tei(served.channel, "RerankStream")
    code, sentence = await refused(stream(iter([])))
    assert (code, sentence) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "request: the stream has no message; send one for each text",
    )
    two = [tei_pb2.RerankStreamRequest(query=query, text="a") for query in ("a", "b")]
    assert "message 1 of the stream has another query" in (await refused(stream(iter(two))))[1]
    many = (tei_pb2.RerankStreamRequest(query="a", text="b") for _ in range(3000))
    assert "more than --max-items 2048 messages" in (await refused(stream(many)))[1]


async def test_a_large_rerank_stream_is_read_beside_the_event_loop(served: serving.Served) -> None:
    messages = [tei_pb2.RerankStreamRequest(query="fox", text="bake bread " * 40_000, truncate=True) for _ in range(3)]
    answer = await tei(served.channel, "RerankStream")(iter(messages))
    assert sorted(rank.index for rank in answer.ranks) == [0, 1, 2]


async def test_tokens_have_their_places_in_bytes(served: serving.Served) -> None:
    text = "bake é bread"
    asked = tei_pb2.EncodeRequest(inputs=text, add_special_tokens=True)
    tokens = (await tei(served.channel, "Tokenize")(asked)).tokens
    assert (tokens[0].text, tokens[0].special, tokens[0].HasField("start")) == ("[CLS]", True, False)
    for token in tokens[1:-1]:
        assert text.encode()[token.start : token.stop].decode() == token.text
    bare = (await tei(served.channel, "Tokenize")(tei_pb2.EncodeRequest(inputs=text))).tokens
    assert list(bare) == list(tokens[1:-1])
    decode = tei(served.channel, "Decode")
    ids = [token.id for token in tokens]
    assert (await decode(tei_pb2.DecodeRequest(ids=ids, skip_special_tokens=True))).text == "bake e bread"
    assert (await decode(tei_pb2.DecodeRequest(ids=ids))).text == "[CLS] bake e bread [SEP]"
    streamed = [each.text async for each in tei(served.channel, "DecodeStream")(iter([tei_pb2.DecodeRequest(ids=ids)]))]
    assert streamed == ["[CLS] bake e bread [SEP]"]


async def test_info_describes_the_model_that_the_operator_chose(served: serving.Served) -> None:
    info = await tei(served.channel, "Info")(tei_pb2.InfoRequest())
    assert (info.model_id, info.model_type, info.max_input_length) == ("embedder", tei_pb2.MODEL_TYPE_EMBEDDING, 64)
    assert (info.model_dtype, info.max_client_batch_size) == ("float32", 2048)
