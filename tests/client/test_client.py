"""Both clients against a real gRPC server: what is sent, what comes back, and what happens when it goes wrong."""

import asyncio
import itertools
import shutil
import subprocess
from collections import deque
from pathlib import Path

import grpc
import numpy as np
import pytest

from pairwire.client import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    NotSupported,
    Overloaded,
    RankedDocument,
    RetryPolicy,
    ServerFault,
    SplitLimits,
    TlsFiles,
    Unavailable,
    WrongModelKind,
)
from pairwire.v1 import embedding_pb2, scoring_pb2
from tests.client.conftest import Connect, EitherClient
from tests.client.fake_server import (
    NOT_SERVING,
    SERVING,
    Failure,
    FakeServer,
    bad_request,
    ranking,
    score_of,
    vector_of,
)

PAIRS = [(f"query {index}", f"document {index}") for index in range(10)]
DOCUMENTS = [f"document {index}" for index in range(10)]

QUICK = RetryPolicy(initial_backoff_s=0.01, max_backoff_s=0.01)


async def test_scores_come_back_in_order_as_float32(client: EitherClient) -> None:
    result = await client.call("score", PAIRS[:3])
    assert result.scores.dtype == np.float32
    assert result.scores.tolist() == [score_of(*pair) for pair in PAIRS[:3]]
    assert result.labels == ("relevant",)
    assert result.model == "fake"
    assert len(result) == 3


async def test_several_labels_make_a_matrix(client: EitherClient, server: FakeServer) -> None:
    server.script.labels = ("no", "yes")
    result = await client.call("score", PAIRS)
    assert result.scores.shape == (10, 2)
    assert np.allclose(result.scores[:, 1] - result.scores[:, 0], 2)


async def test_a_large_input_is_split_and_comes_back_whole(client: EitherClient, server: FakeServer) -> None:
    result = await client.call("score", PAIRS)
    assert result.scores.tolist() == [score_of(*pair) for pair in PAIRS]
    assert sorted(len(request.text_pairs.pairs) for request in server.script.requests) == [2, 4, 4]


async def test_usage_and_timing_of_a_split_input_are_one(client: EitherClient) -> None:
    result = await client.call("score", PAIRS)
    assert (result.usage.tokens, result.usage.padded_tokens) == (100, 10)
    assert result.usage.truncated_inputs == (0, 4, 8)
    timing = result.timing
    assert (timing.queue_s, timing.tokenize_s, timing.compute_s) == pytest.approx((0.003, 0.006, 0.009))
    assert timing.requests == 3
    assert timing.elapsed_s > 0


async def test_no_more_requests_are_under_way_than_allowed(client: EitherClient, server: FakeServer) -> None:
    await client.call("score", PAIRS * 10)
    assert len(server.script.requests) == 25
    assert 1 <= server.script.most_active <= 3


async def test_requests_of_a_split_input_are_under_way_together(client: EitherClient, server: FakeServer) -> None:
    server.script.gate.clear()
    scoring = asyncio.create_task(client.call("score", PAIRS))
    await asyncio.to_thread(server.script.wait_for_active, 3)  # one by one they would stop at 1: the gate is closed
    server.script.gate.set()
    assert len(await scoring) == 10


async def test_options_travel(client: EitherClient, server: FakeServer) -> None:
    await client.call("score", PAIRS[:1], model="fake", activation="identity", truncation="only_second", max_length=64)
    (request,) = server.script.requests
    assert isinstance(request, scoring_pb2.ScoreRequest)
    assert request.model == "fake"
    assert request.activation == scoring_pb2.ACTIVATION_IDENTITY
    assert request.truncation == scoring_pb2.TRUNCATION_ONLY_SECOND
    assert request.max_length == 64


@pytest.mark.parametrize("priority", ["low", "normal", "high", None])
async def test_the_priority_travels_with_every_kind_of_request(
    client: EitherClient, server: FakeServer, priority: str | None
) -> None:
    await client.call("score", PAIRS[:1], priority=priority)
    await client.call("score_documents", "q", ["d"], priority=priority)
    await client.call("rerank", "q", ["d"], priority=priority)
    await client.call("embed", ["t"], priority=priority)
    expected = scoring_pb2.Priority.Value(f"PRIORITY_{(priority or 'unspecified').upper()}")
    assert [request.priority for request in server.script.requests] == [expected] * 4


async def test_score_documents_sends_the_query_once_a_request(client: EitherClient, server: FakeServer) -> None:
    result = await client.call("score_documents", "q", DOCUMENTS)
    assert result.scores.tolist() == [score_of("q", document) for document in DOCUMENTS]
    assert {request.query_documents.query for request in server.script.requests} == {"q"}


async def test_rerank_sorts_all_parts_together(client: EitherClient) -> None:
    result = await client.call("rerank", "q", DOCUMENTS)
    order = ranking([score_of("q", document) for document in DOCUMENTS])
    assert [found.index for found in result] == order
    assert result[0] == RankedDocument(order[0], float(score_of("q", DOCUMENTS[order[0]])), DOCUMENTS[order[0]])
    assert [found.document for found in result] == [DOCUMENTS[index] for index in order]


async def test_equal_scores_keep_the_order_of_the_input(client: EitherClient) -> None:
    result = await client.call("rerank", "q", [f"{index} tie" for index in range(10)], top_k=7)
    assert [found.index for found in result] == [0, 1, 2, 3, 4, 5, 6]


async def test_top_k_is_of_all_documents_not_of_each_part(client: EitherClient, server: FakeServer) -> None:
    result = await client.call("rerank", "q", DOCUMENTS, top_k=5)
    assert [found.index for found in result] == ranking([score_of("q", document) for document in DOCUMENTS])[:5]
    assert {request.top_k for request in server.script.requests} == {5}
    assert not any(request.return_documents for request in server.script.requests)


async def test_embeddings_are_a_fresh_float32_matrix(client: EitherClient) -> None:
    texts = [f"text {index}" for index in range(10)]
    for count in (2, 10):
        vectors = (await client.call("embed", texts[:count])).embeddings
        assert vectors.dtype == np.float32
        assert vectors.flags.writeable
        assert np.array_equal(vectors, np.stack([vector_of(text) for text in texts[:count]]))


async def test_half_precision_embeddings_arrive_as_float32(client: EitherClient, server: FakeServer) -> None:
    vectors = (await client.call("embed", ["some text"], encoding="float16", prompt_name="query")).embeddings
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[0], vector_of("some text").astype(np.float16).astype(np.float32))
    (request,) = server.script.requests
    assert isinstance(request, embedding_pb2.EmbedRequest)
    assert request.encoding == embedding_pb2.ENCODING_FLOAT16
    assert request.prompt_name == "query"


async def test_an_unset_prompt_name_is_not_sent(client: EitherClient, server: FakeServer) -> None:
    await client.call("embed", ["text"])
    assert not server.script.requests[0].HasField("prompt_name")


async def test_a_stream_reads_its_input_only_as_it_goes(client: EitherClient, server: FakeServer) -> None:
    endless = ((f"query {index}", "document") for index in itertools.count())
    result = await client.first_of("score_stream", endless)
    assert result.scores.tolist() == [score_of(f"query {index}", "document") for index in range(4)]
    assert len(server.script.requests) <= 4


async def test_streams_yield_what_the_call_returns_at_once(client: EitherClient) -> None:
    results = await client.collect("score_stream", iter(PAIRS))
    assert [len(result) for result in results] == [4, 4, 2]
    assert np.array_equal(
        np.concatenate([result.scores for result in results]), (await client.call("score", PAIRS)).scores
    )
    assert [result.usage.truncated_inputs for result in results] == [(0,), (4,), (8,)]
    vectors = await client.collect("embed_stream", ["a", "b", "c", "d", "e"])
    assert [len(result) for result in vectors] == [4, 1]


async def test_nothing_is_sent_when_any_input_is_wrong(client: EitherClient, server: FakeServer) -> None:
    with pytest.raises(InvalidInput, match=r"pairs\[9\]\.second: expected text \(str\), got NoneType") as caught:
        await client.call("score", [*PAIRS[:9], ("a", None)])
    assert caught.value.field == "pairs[9].second"
    assert server.script.requests == []


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("score", ([],), "pairs: at least one is needed"),
        ("score", ("ab",), "pairs: expected a list, got one str"),
        ("score", (["ab"],), r"pairs\[0\]: expected two texts"),
        ("score", ([("a", "b", "c")],), r"pairs\[0\]: expected two texts, got 3"),
        ("score", ([("a", "b\ud800")],), r"pairs\[0\]\.second: not valid Unicode: a lone surrogate at character 1"),
        ("score", (7,), "pairs: expected a list, got int"),
        ("rerank", ("q", []), "documents: at least one is needed"),
        ("rerank", (None, ["a"]), "query: expected text"),
        ("rerank", ("q\udfff", ["a"]), "query: not valid Unicode"),
        ("rerank", ("q", "one document"), "documents: expected a list, got one str"),
        ("rerank", ("q", ["a", 3]), r"documents\[1\]: expected text \(str\), got int"),
        ("embed", ([b"bytes"],), r"texts\[0\]: expected text \(str\), got bytes"),
    ],
)
async def test_wrong_input_is_named(client: EitherClient, method: str, arguments: tuple, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await client.call(method, *arguments)


async def test_documents_below_a_score_are_left_out_whatever_the_server_knows(
    client: EitherClient, server: FakeServer
) -> None:
    everything = list(await client.call("rerank", "q", DOCUMENTS))
    least = everything[2].score
    found = await client.call("rerank", "q", DOCUMENTS, min_score=least)  # the fake server ignores it
    assert list(found) == [document for document in everything if document.score >= least]
    assert {request.min_score for request in server.script.requests if request.HasField("min_score")} == {least}
    assert list(await client.call("rerank", "q", DOCUMENTS, min_score=np.float32(np.inf))) == []


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"top_k": 0}, "top_k: 0 is not between 1 and"),
        ({"top_k": -1}, "top_k: -1 is not between"),
        ({"top_k": 2.5}, "top_k: expected a whole number, got float"),
        ({"min_score": "0.5"}, "min_score: expected a number, got str"),
        ({"min_score": True}, "min_score: expected a number, got bool"),
        ({"min_score": float("nan")}, "min_score: NaN is not above or below any number"),
        ({"activation": "relu"}, "activation: 'relu' is unknown; one of identity, sigmoid, softmax"),
        ({"truncation": "both"}, "truncation: 'both' is unknown; one of longest_first, only_first, only_second, error"),
        ({"priority": "urgent"}, "priority: 'urgent' is unknown; one of low, normal, high"),
        ({"max_length": True}, "max_length: expected a whole number, got bool"),
        ({"model": 3}, "model: expected text"),
    ],
)
async def test_wrong_options_are_named(client: EitherClient, named: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await client.call("rerank", "q", ["a"], **named)


async def test_timeouts_that_are_none_are_refused(client: EitherClient) -> None:
    for timeout_s in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout_s"):
            await client.call("score", PAIRS, timeout_s=timeout_s)


async def test_numpy_takes_the_place_of_lists_and_numbers(client: EitherClient) -> None:
    result = await client.call("score", np.array(PAIRS))
    assert result.scores.tolist() == [score_of(*pair) for pair in PAIRS]
    assert len(await client.call("rerank", np.str_("q"), np.array(DOCUMENTS), top_k=np.int64(3))) == 3


async def test_the_server_s_field_is_told_in_the_caller_s_numbers(client: EitherClient, server: FakeServer) -> None:
    server.script.failures = deque([None, None, bad_request("text_pairs.pairs[1].first", "too long")])
    with pytest.raises(InvalidInput, match=r"^pairs\[(1|5|9)\]\.first: too long$") as caught:
        await client.call("score", PAIRS)
    wrong = int(caught.value.field[6])
    failed = server.script.requests[2].text_pairs.pairs[0].first  # the third to arrive
    assert failed == f"query {wrong - 1}"
    assert caught.value.violations[0].reason == "too long"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, ModelNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, WrongModelKind),
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.UNIMPLEMENTED, NotSupported),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.CANCELLED, Cancelled),
    ],
)
async def test_a_status_becomes_an_error_and_is_not_retried(
    client: EitherClient, server: FakeServer, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    server.script.failures = deque([Failure(code, "a sentence of the server")])
    with pytest.raises(kind, match="a sentence of the server"):
        await client.call("score", PAIRS[:1])
    assert len(server.script.requests) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_what_may_pass_is_tried_again(connect: Connect, server: FakeServer, code: grpc.StatusCode) -> None:
    client = await connect(server.address, retry=QUICK)
    server.script.failures = deque([Failure(code)] * 4)
    assert len(await client.call("score", PAIRS[:1])) == 1
    assert len(server.script.requests) == 5


async def test_a_large_request_is_tried_again_too(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, retry=QUICK)
    server.script.failures = deque([Failure(grpc.StatusCode.UNAVAILABLE)])
    result = await client.call("score", [("q", "x" * 3_000_000)])
    assert len(result) == 1
    assert len(server.script.requests) == 2


async def test_push_back_replaces_the_backoff(connect: Connect, server: FakeServer) -> None:
    hours = RetryPolicy(initial_backoff_s=3600, max_backoff_s=3600)
    client = await connect(server.address, retry=hours)
    server.script.failures = deque(
        [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=(("grpc-retry-pushback-ms", "1"),))] * 2
    )
    assert len(await client.call("score", PAIRS[:1])) == 1
    assert len(server.script.requests) == 3


async def test_overload_that_lasts_is_told_with_the_servers_estimate(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, retry=QUICK)
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", (("grpc-retry-pushback-ms", "20"),))
    server.script.failures = deque([full] * 5)
    with pytest.raises(Overloaded, match="the queue is full") as caught:
        await client.call("score", PAIRS[:1])
    assert caught.value.retry_after_s == 0.02
    assert len(server.script.requests) == 5


async def test_retries_can_be_turned_off(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, retry=RetryPolicy(attempts=1))
    server.script.failures = deque([Failure(grpc.StatusCode.UNAVAILABLE, "draining")])
    with pytest.raises(Unavailable, match="draining"):
        await client.call("score", PAIRS[:1])


async def test_retries_stop_when_most_calls_fail(connect: Connect, server: FakeServer) -> None:
    client = await connect(
        server.address,
        retry=RetryPolicy(initial_backoff_s=0.01, max_backoff_s=0.01, throttle_tokens=6, throttle_ratio=0.1),
    )
    server.script.failures = deque([Failure(grpc.StatusCode.UNAVAILABLE)] * 100)
    for _ in range(4):
        with pytest.raises(Unavailable):
            await client.call("score", PAIRS[:1])
    assert len(server.script.requests) < 4 * 5


async def test_nobody_there_says_where_and_what_to_do(connect: Connect, server: FakeServer) -> None:
    server.close()
    client = await connect(server.address, retry=QUICK)
    with pytest.raises(Unavailable, match=f"{server.address}: nothing is ready .*`pairwire serve`"):
        await client.call("score", PAIRS[:1])


async def test_a_call_ends_at_its_deadline(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address)
    server.script.gate.clear()
    with pytest.raises(DeadlineExceeded, match="no answer in time"):
        await client.call("score", PAIRS[:1], timeout_s=0.05)


async def test_the_deadline_is_the_call_s_or_else_the_client_s(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, timeout_s=500)
    await client.call("score", PAIRS[:1])
    await client.call("score", PAIRS[:1], timeout_s=90)
    await client.call("score", PAIRS[:1], timeout_s=float("inf"))
    own, given, none = server.script.seconds_left
    assert own is not None
    assert 400 < own <= 501
    assert given is not None
    assert 60 < given <= 91
    assert none is None or none > 1e6


async def test_the_default_deadline_is_half_a_minute(connect: Connect, server: FakeServer) -> None:
    await (await connect(server.address)).call("score", PAIRS[:1])
    (left,) = server.script.seconds_left
    assert left is not None
    assert 15 < left <= 31


async def test_metadata_goes_with_every_call(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, metadata=(("authorization", "Bearer secret"),))
    await client.call("score", PAIRS[:1])
    await client.call("models")
    assert [found["authorization"] for found in server.script.metadata] == ["Bearer secret"] * 2


async def test_a_failed_part_cancels_the_others(client: EitherClient, server: FakeServer) -> None:
    server.script.failures = deque([Failure(grpc.StatusCode.INTERNAL, "broken")] * 3)
    with pytest.raises(ServerFault, match="broken"):
        await client.call("score", PAIRS * 10)
    assert len(server.script.requests) <= 5  # of 25: three failed, at most two more were on their way


async def test_closing_a_stream_cancels_what_is_under_way(client: EitherClient, server: FakeServer) -> None:
    server.script.failures = deque()
    stream_input = iter(PAIRS * 10)
    first = await client.first_of("score_stream", stream_input)
    assert len(first) == 4
    assert len(server.script.requests) <= 4


async def test_several_servers_are_called_in_turn(connect: Connect, server: FakeServer) -> None:
    other = FakeServer()
    try:
        client = await connect([server.address, other.address])
        for _ in range(20):
            await client.call("score", PAIRS[:1])
        counts = sorted([len(server.script.requests), len(other.script.requests)])
        assert sum(counts) == 20
        assert counts[0] >= 5
    finally:
        other.close()


async def test_a_server_that_is_not_ready_is_left_out(connect: Connect, server: FakeServer) -> None:
    other = FakeServer(ready=False)
    try:
        client = await connect([server.address, other.address])
        for _ in range(10):
            await client.call("score", PAIRS[:1])
        assert other.script.requests == []
    finally:
        other.close()


async def test_servers_of_different_models_are_not_mixed(connect: Connect, server: FakeServer) -> None:
    other = FakeServer()
    other.script.model = "another"
    try:
        client = await connect([server.address, other.address], split=SplitLimits(max_items=1))
        with pytest.raises(ServerFault, match="serve different models"):
            await client.call("score", PAIRS * 5)
    finally:
        other.close()


async def test_waiting_ends_when_the_server_is_ready(connect: Connect) -> None:
    server = FakeServer(ready=False)
    try:
        client = await connect(server.address)
        waiting = asyncio.create_task(client.call("wait_until_ready", 60))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        server.health.set("", SERVING)
        await waiting
    finally:
        server.close()


async def test_waiting_for_nobody_ends_in_time(connect: Connect, server: FakeServer) -> None:
    server.health.set("", NOT_SERVING)
    client = await connect(server.address)
    with pytest.raises(DeadlineExceeded, match=r"no server was ready within 0\.1 s"):
        await client.call("wait_until_ready", 0.1)


async def test_waiting_survives_a_server_that_comes_late(connect: Connect, server: FakeServer) -> None:
    port = server.port
    server.close()
    client = await connect(f"127.0.0.1:{port}")
    waiting = asyncio.create_task(client.call("wait_until_ready", 60))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    late = FakeServer(port=port)
    try:
        await waiting
    finally:
        late.close()


async def test_models_are_told(client: EitherClient, server: FakeServer) -> None:
    server.script.prompts = {"query": "query: "}
    (model,) = await client.call("models")
    assert (model.name, model.kind, model.variant, model.bucket_lengths) == (
        "fake",
        "cross-encoder",
        "cpu-int8",
        (16, 32),
    )
    details = await client.call("model", "fake")
    assert details.model == model
    assert details.manifest.prompts["query"] == "query: "
    with pytest.raises(ModelNotFound, match="'other'"):
        await client.call("model", "other")


@pytest.mark.parametrize(
    ("method", "arguments", "answer"),
    [
        ("score", (PAIRS[:2],), scoring_pb2.ScoreResponse(scores=[0.5], labels=["a"])),
        ("score", (PAIRS[:2],), scoring_pb2.ScoreResponse(scores=[0.5, 0.5])),
        ("rerank", ("q", ["a", "b"]), scoring_pb2.RerankResponse()),
        ("rerank", ("q", ["a"]), scoring_pb2.RerankResponse(results=[scoring_pb2.RankedDocument(index=7)])),
        ("embed", (["a"],), embedding_pb2.EmbedResponse()),
        (
            "embed",
            (["a"],),
            embedding_pb2.EmbedResponse(embeddings=embedding_pb2.Embeddings(data=b"1234567", rows=1, dimensions=2)),
        ),
        (
            "embed",
            (["a"],),
            embedding_pb2.EmbedResponse(embeddings=embedding_pb2.Embeddings(rows=1, dimensions=2, encoding=99)),
        ),
    ],
)
async def test_an_answer_that_does_not_fit_is_the_servers_fault(
    client: EitherClient, server: FakeServer, method: str, arguments: tuple, answer: scoring_pb2.ScoreResponse
) -> None:
    server.script.answer = answer
    with pytest.raises(ServerFault, match="the server"):
        await client.call(method, *arguments)


async def test_a_text_larger_than_a_request_is_refused_here(connect: Connect, server: FakeServer) -> None:
    client = await connect(server.address, split=SplitLimits(max_bytes=1000))
    with pytest.raises(InvalidInput, match=r"texts\[1\]: 20\d\d bytes .* more than the 1000 of one request"):
        await client.call("embed", ["a", "x" * 2000])
    assert server.script.requests == []


@pytest.fixture(scope="module")
def certificate_and_key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command here to make a certificate with")
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pairwire.test"
    )
    subject = ["-addext", "subjectAltName=DNS:pairwire.test", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *subject], check=True, capture_output=True)
    return certificate, key


async def test_tls_with_a_client_certificate(connect: Connect, certificate_and_key: tuple[Path, Path]) -> None:
    certificate, key = certificate_and_key
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], certificate.read_bytes(), require_client_auth=True
    )
    server = FakeServer(credentials=credentials)
    try:
        tls = TlsFiles(
            root_certificates=certificate,
            client_certificate=certificate,
            client_key=key,
            server_name="pairwire.test",
        )
        client = await connect(server.address, tls=tls)
        assert len(await client.call("score", PAIRS[:1])) == 1
        plain = await connect(server.address, retry=RetryPolicy(attempts=1))
        with pytest.raises(Unavailable):
            await plain.call("score", PAIRS[:1])
    finally:
        server.close()
