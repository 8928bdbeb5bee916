"""KServe v2 as its clients know it: what it says of models, streams, parameters, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from pairwire.foreign import kserve_pb2
from pairwire.server.app import Application
from tests.server import serving
from tests.server.compat.foreign import arrays, kserve, numbers, request, texts
from tests.server.compat.test_tei import LONG, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAIR = (texts("query", ["fox"]), texts("documents", ["bake bread", "the dog"]))


async def test_probes_are_answered_while_models_are_loaded(scorer_package: Path) -> None:
    application = Application(serving.config(scorer_package))
    await application.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{application.port}") as channel:
        ask = lambda name, message: kserve(channel, name)(message)  # noqa: E731
        named = kserve_pb2.ModelReadyRequest(name="scorer")
        assert (await ask("ServerLive", kserve_pb2.ServerLiveRequest())).live
        assert not (await ask("ServerReady", kserve_pb2.ServerReadyRequest())).ready
        assert not (await ask("ModelReady", named)).ready
        assert (await refused(ask("ModelInfer", request("scorer", *PAIR))))[0] is grpc.StatusCode.UNAVAILABLE
        await application.load()
        assert (await ask("ServerReady", kserve_pb2.ServerReadyRequest())).ready
        assert (await ask("ModelReady", named)).ready
    await application.abort()


async def test_a_model_is_described_as_perf_analyzer_needs_it(served: serving.Served) -> None:
    for name in ("scorer", "classifier", "embedder", "splade"):
        asked = kserve_pb2.ModelMetadataRequest(name=name)
        metadata = await kserve(served.channel, "ModelMetadata")(asked)
        config = (await kserve(served.channel, "ModelConfig")(kserve_pb2.ModelConfigRequest(name=name))).config
        assert all(each.optional for each in config.input)
        assert config.max_batch_size == 0
        assert [(each.name, list(each.shape)) for each in metadata.inputs] == [
            (each.name, list(each.dims)) for each in config.input
        ]
        assert [each.name for each in metadata.outputs] == [each.name for each in config.output]
    extensions = (await kserve(served.channel, "ServerMetadata")(kserve_pb2.ServerMetadataRequest())).extensions
    assert "statistics" in extensions


async def test_statistics_count_what_was_done(served: serving.Served) -> None:
    async def read() -> kserve_pb2.ModelStatistics:
        asked = kserve_pb2.ModelStatisticsRequest(name="scorer")
        (found,) = (await kserve(served.channel, "ModelStatistics")(asked)).model_stats
        return found  # type: ignore[no-any-return]  # the stub is made of descriptors

    before = await read()
    for _ in range(3):
        await kserve(served.channel, "ModelInfer")(request("scorer", *PAIR))
    too_long = request("scorer", PAIR[0], texts("documents", [LONG]), parameters={"truncation": "error"})
    await refused(kserve(served.channel, "ModelInfer")(too_long))
    after = await read()
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count > before.execution_count
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert after.last_inference >= before.last_inference > 1_700_000_000_000 or not before.last_inference
    assert sum(each.compute_infer.count for each in after.batch_stats) == after.execution_count
    every = (await kserve(served.channel, "ModelStatistics")(kserve_pb2.ModelStatisticsRequest())).model_stats
    assert {each.name for each in every} == {"scorer", "classifier", "embedder", "splade"}


async def test_outputs_come_in_the_order_in_which_they_are_asked_for(served: serving.Served) -> None:
    infer = kserve(served.channel, "ModelInfer")
    answer = await infer(request("scorer", *PAIR, outputs=["rank", "score"], parameters={"top_k": 1}))
    assert [each.name for each in answer.outputs] == ["rank", "score"]
    assert {name: each.shape for name, each in arrays(answer).items()} == {"rank": (1,), "score": (2, 1)}
    assert [each.name for each in (await infer(request("classifier", *PAIR))).outputs] == ["score", "logit"]


async def test_a_request_that_names_no_model_is_answered_by_the_one_for_its_inputs(served: serving.Served) -> None:
    infer = kserve(served.channel, "ModelInfer")
    assert (await infer(request("", *PAIR))).model_name == "scorer"
    assert (await infer(request("", texts("text", ["fox"])))).model_name == "embedder"


async def test_a_stream_goes_on_after_an_error_unless_its_client_wants_it_to_end(served: serving.Served) -> None:
    requests = [
        request("scorer", *PAIR, id="a"),
        request("scorer", PAIR[0], id="b"),
        request("scorer", *PAIR, id="c", parameters={"triton_enable_empty_final_response": True}),
    ]
    stream = kserve(served.channel, "ModelStreamInfer")
    answers = [answer async for answer in stream(iter(requests))]
    assert [each.infer_response.id for each in answers] == ["a", "b", "c"]
    assert answers[1].error_message.startswith("inputs: there is query; give query and documents")
    assert not answers[0].error_message
    assert answers[2].infer_response.parameters["triton_final_response"].bool_param
    ended = stream(iter(requests), metadata=(("triton_grpc_error", "true"),))
    assert (await refused(ended))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_timeout_is_in_microseconds_and_bounds_the_call(served: serving.Served) -> None:
    infer = kserve(served.channel, "ModelInfer")
    for value in (1, 0, 60_000_000):
        call = infer(request("scorer", *PAIR, parameters={"timeout": value}))
        if value == 1:
            assert (await refused(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            assert (await call).outputs


@pytest.mark.parametrize(
    ("message", "code", "sentence"),
    [
        (request("nobody", *PAIR), "NOT_FOUND", "no model 'nobody' is loaded"),
        (request("scorer", *PAIR, model_version="2"), "NOT_FOUND", "model 'scorer' has no version 2; there is 1"),
        (request("scorer", *PAIR, model_version="x"), "INVALID_ARGUMENT", "model_version: 'x' is no version"),
        (request("", numbers("input_ids", [[1]])), "INVALID_ARGUMENT", "model: empty, but there are several"),
        (request("scorer"), "INVALID_ARGUMENT", "inputs: there is none; give query and documents"),
        (request("embedder", *PAIR), "INVALID_ARGUMENT", "inputs: there is query, documents; give text"),
        (request("scorer", *PAIR, outputs=["x"]), "INVALID_ARGUMENT", "outputs.x: model 'scorer' has no such output"),
        (
            request("scorer", *PAIR, parameters={"topk": 1}),
            "INVALID_ARGUMENT",
            "parameters.topk: unknown; did you mean",
        ),
        (request("scorer", *PAIR, parameters={"top_k": 0}), "INVALID_ARGUMENT", "parameters.top_k: 0 is less than 1"),
        (request("scorer", *PAIR, parameters={"truncation": "x"}), "INVALID_ARGUMENT", "parameters.truncation: 'x' is"),
        (request("scorer", *PAIR, parameters={"sequence_id": 3}), "UNIMPLEMENTED", "parameters.sequence_id: sequences"),
        (
            request("scorer", PAIR[0], texts("documents", [b"\xff"])),
            "INVALID_ARGUMENT",
            "documents[0]: not valid UTF-8",
        ),
        (
            request("scorer", texts("query", ["a", "b", "c"]), PAIR[1]),
            "INVALID_ARGUMENT",
            "query: 3 texts beside 2 of documents; give one, or as many",
        ),
        (
            request("scorer", *PAIR, texts("text", ["a"])),
            "INVALID_ARGUMENT",
            "inputs.text: given beside query, documents, which",
        ),
        (request("scorer", PAIR[0], PAIR[0], PAIR[1]), "INVALID_ARGUMENT", "inputs.query: given twice"),
        (
            request("scorer", PAIR[0], numbers("documents", [1])),
            "INVALID_ARGUMENT",
            "documents: datatype INT64, expected",
        ),
        (request("scorer", numbers("input_ids", [[1, 2, 3]])), "INVALID_ARGUMENT", "input_ids[0]: does not begin with"),
        (
            request("scorer", numbers("input_ids", [[2, 5, 3, 6, 3]]), numbers("attention_mask", [[1, 1]])),
            "INVALID_ARGUMENT",
            "attention_mask: shape [1, 2], but input_ids has [1, 5]",
        ),
        (
            request("scorer", numbers("input_ids", [[2, 5, 3, 6, 3]]), numbers("token_type_ids", [[0, 0, 0, 0, 0]])),
            "INVALID_ARGUMENT",
            "token_type_ids[0]: not the types",
        ),
        (
            request("embedder", numbers("input_ids", [[2, 5, 6, 3]]), numbers("attention_mask", [[1, 0, 1, 1]])),
            "INVALID_ARGUMENT",
            "attention_mask: a row has ones on both sides of zeros",
        ),
    ],
)
async def test_what_cannot_be_served_is_said_plainly(
    served: serving.Served, message: Any, code: str, sentence: str
) -> None:
    found, said = await refused(kserve(served.channel, "ModelInfer")(message))
    assert (found.name, said[: len(sentence)]) == (code, sentence)


async def test_contents_that_do_not_fit_are_refused(served: serving.Served) -> None:
    infer = kserve(served.channel, "ModelInfer")
    good = request("scorer", *PAIR)
    for change, sentence in (
        (lambda it: it.raw_input_contents.pop(), "raw_input_contents: 1 of them for 2 inputs"),
        (lambda it: it.inputs[1].shape.__setitem__(0, 3), "are no 3 elements of BYTES"),
        (lambda it: it.inputs[1].shape.__setitem__(0, 10**6), "1000000 exceed --max-items 2048"),
        (lambda it: it.inputs[1].shape.__setitem__(0, -1), "has a negative dimension"),
        (lambda it: setattr(it.inputs[1], "datatype", "BYTE"), "datatype 'BYTE' is unknown; one of BYTES, BOOL"),
        (lambda it: it.inputs[0].contents.bytes_contents.append(b"a"), "beside raw_input_contents; give one"),
        (lambda it: it.parameters["priority"].Clear(), "parameters.priority: no value that is known"),
        (lambda it: it.inputs[0].parameters["shared_memory_region"].SetInParent(), "shared memory is not read"),
    ):
        broken = kserve_pb2.ModelInferRequest()
        broken.CopyFrom(good)
        change(broken)  # type: ignore[no-untyped-call]
        assert sentence in (await refused(infer(broken)))[1]


async def test_large_messages_are_looked_through_before_they_take_memory(served: serving.Served) -> None:
    infer = kserve(served.channel, "ModelInfer")
    many = request("scorer", PAIR[0], texts("documents", ["bake bread " * 2000] * 30))
    assert arrays(await infer(many))["score"].shape == (30, 1)
    typed = request("scorer", PAIR[0], texts("documents", ["bake bread " * 2000] * 30), typed=True)
    assert arrays(await infer(typed))["score"].shape == (30, 1)
    numbers_ = kserve_pb2.ModelInferRequest(model_name="embedder")
    numbers_.inputs.add(name="input_ids", datatype="INT64", shape=[1, 5 << 20]).contents.int64_contents.extend(
        [1] * (5 << 20)
    )
    assert "numbers of 8 bytes exceed --max-message-bytes" in (await refused(infer(numbers_)))[1]
    empty = kserve_pb2.ModelInferRequest(model_name="scorer")
    empty.inputs.add(name="text", datatype="BYTES", shape=[200_000]).contents.bytes_contents.extend([b""] * 200_000)
    assert "more than --max-items" in (await refused(infer(empty)))[1]
    fields = kserve_pb2.ModelInferRequest(model_name="scorer")
    for at in range(100_000):
        fields.inputs.add(name=f"{at}")
    assert "more than 1000 fields" in (await refused(infer(fields)))[1]


async def test_what_is_not_there_says_why(served: serving.Served) -> None:
    for name, message, sentence in (
        (
            "RepositoryModelLoad",
            {"model_name": "a"},
            "models are loaded when the server starts, and stay; start it with --repository",
        ),
        ("RepositoryModelLoad", {"repository_name": "a"}, "model_name: empty, and repository_name is 'a'"),
        ("SystemSharedMemoryRegister", {"name": "a"}, "SystemSharedMemoryRegister: shared memory is not used"),
        ("TraceSetting", {}, "TraceSetting: there are no trace settings"),
        ("LogSettings", {}, "LogSettings: there are no log settings; see --log-level"),
    ):
        made = getattr(kserve_pb2, f"{name}Request")(**message)
        assert (await refused(kserve(served.channel, name)(made)))[1].startswith(sentence)
    index = await kserve(served.channel, "RepositoryIndex")(kserve_pb2.RepositoryIndexRequest(ready=True))
    assert [(each.name, each.state) for each in index.models] == [
        (name, "READY") for name in ("classifier", "embedder", "scorer", "splade")
    ]
