"""tritonclient.http: raw contents, JSON, compression, metadata, statistics."""

import json
import os
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
client = triton.InferenceServerClient(URL.removeprefix("http://"))


def text(name: str, values: list[str], *, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, [len(values)], "BYTES")
    given.set_data_from_numpy(np.array([value.encode() for value in values], np.object_), binary_data=binary)
    return given


assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("demo")
assert not client.is_model_ready("nope")
assert client.get_server_metadata()["name"] == "pairwire"
assert {each["name"] for each in client.get_model_metadata("demo")["inputs"]} >= {"query", "documents"}
assert client.get_model_config("mini")["name"] == "mini"
assert {each["name"] for each in client.get_model_repository_index()} == {"demo", "mini", "splade"}

before = client.get_inference_statistics("mini")["model_stats"][0]["inference_stats"]["success"]["count"]
for binary in (True, False):
    for coding in (None, "gzip", "deflate"):
        outputs = [triton.InferRequestedOutput("embedding", binary_data=binary)]
        found = client.infer(
            "mini",
            [text("text", expected["documents"], binary=binary)],
            outputs=outputs,
            request_id="7",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        np.testing.assert_array_equal(found.as_numpy("embedding"), np.float32(expected["vectors"]))
        assert found.get_response()["id"] == "7"
after = client.get_inference_statistics("mini")["model_stats"][0]["inference_stats"]["success"]["count"]
assert after - before == 6

pairs = [text("query", [expected["query"]]), text("documents", expected["documents"])]
found = client.infer("demo", pairs, priority=1, timeout=10_000_000)
np.testing.assert_array_equal(found.as_numpy("logit").ravel(), np.float32(expected["logits"]).ravel())

for model, inputs, told in (
    ("nope", pairs, "no model 'nope' is loaded"),
    ("demo", [text("nope", ["a"])], "give query and documents"),
):
    try:
        client.infer(model, inputs)
    except InferenceServerException as error:
        assert told in str(error), error
    else:
        raise AssertionError("it was served")
client.close()
