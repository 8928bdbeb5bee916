import queue

import numpy as np
import tritonclient.grpc as triton
from given import EXPECTED, SERVER, refused

client = triton.InferenceServerClient(SERVER)


def texts(name, values, shape=None):
    array = np.array([value.encode() for value in values], object).reshape(shape or [len(values)])
    tensor = triton.InferInput(name, list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("demo")
refused(triton.InferenceServerException, lambda: client.is_model_ready("nobody"), "no model 'nobody' is loaded")
assert client.get_server_metadata().name == "pairwire"
assert {each.name for each in client.get_model_repository_index().models} == {"demo", "mini", "splade"}
assert client.get_model_config("mini").config.output[0].name == "embedding"

pair = [texts("query", [EXPECTED.query]), texts("documents", EXPECTED.documents)]
for options in (
    {},
    {"compression_algorithm": "gzip"},
    {"compression_algorithm": "deflate"},
    {"priority": 1, "timeout": 60_000_000, "parameters": {"top_k": 2, "truncation": "error"}},
):
    answer = client.infer("demo", pair, request_id="42", **options)
    assert answer.get_response().id == "42"
    assert answer.as_numpy("logit")[:, 0].astype(float).tolist() == EXPECTED.logits
    ranked = np.argsort(-np.array(EXPECTED.logits), kind="stable").tolist()
    assert answer.as_numpy("rank").tolist() == ranked[: 2 if "parameters" in options else None]
answer = client.infer("mini", [texts("text", EXPECTED.documents)], outputs=[triton.InferRequestedOutput("embedding")])
assert answer.as_numpy("embedding").astype(float).tolist() == EXPECTED.vectors
answer = client.infer("splade", [texts("text", EXPECTED.documents)])
assert answer.as_numpy("indices").tolist() == EXPECTED.indices
assert answer.as_numpy("values").astype(float).tolist() == EXPECTED.weights
assert answer.as_numpy("counts").tolist() == EXPECTED.counts

before = client.get_inference_statistics("demo").model_stats[0].inference_stats.success.count
client.infer("demo", pair)
assert client.get_inference_statistics("demo").model_stats[0].inference_stats.success.count == before + 1

answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for number in range(20):
    inputs = pair if number != 7 else pair[:1]
    client.async_stream_infer("demo", inputs, request_id=str(number))
client.stop_stream()
found = [answers.get_nowait() for _ in range(20)]
assert [result.get_response().id for result, error in found if error is None] == [str(n) for n in range(20) if n != 7]
assert "give query and documents" in str(found[7][1])

wrong = triton.InferenceServerException
refused(wrong, lambda: client.infer("nobody", pair), "NOT_FOUND", "no model 'nobody' is loaded; there is 'demo'")
refused(wrong, lambda: client.infer("mini", pair), "INVALID_ARGUMENT", "inputs: there is query, documents; give text")
refused(wrong, lambda: client.infer("demo", pair, parameters={"topk": 2}), "parameters.topk: unknown", "top_k")
refused(wrong, lambda: client.infer("demo", pair, timeout=1), "DEADLINE_EXCEEDED")
refused(wrong, lambda: client.infer("demo", pair, sequence_id=3), "sequences are for models with state")
refused(wrong, lambda: client.load_model("demo"), "models are loaded when the server starts")
refused(
    wrong,
    lambda: client.infer("demo", pair, outputs=[triton.InferRequestedOutput("score", class_count=1)]),
    "no classification here",
)
client.close()
