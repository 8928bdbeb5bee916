"""Whatever a body holds, it is served or refused with a sentence; nothing of it is a fault of the server."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.compat.http.running import Running

ROUTES = {
    "/v1/embeddings": ("input", "model", "encoding_format", "dimensions", "truncate_prompt_tokens"),
    "/v1/rerank": ("query", "documents", "top_n", "return_documents", "rank_fields", "raw_scores"),
    "/rerank": ("query", "texts", "documents", "truncate", "truncation_direction", "return_text", "top_n"),
    "/score": ("text_1", "text_2", "queries", "items", "use_activation"),
    "/classify": ("input", "model"),
    "/embed": ("inputs", "normalize", "truncate", "prompt_name", "dimensions"),
    "/predict": ("inputs", "raw_scores"),
    "/similarity": ("inputs", "parameters"),
    "/tokenize": ("inputs", "add_special_tokens", "prompt_name"),
    "/decode": ("ids", "skip_special_tokens"),
    "/": ("inputs", "parameters", "texts", "query"),
    "/vertex": ("instances",),
    "/v2/models/embedder/infer": ("inputs", "outputs", "parameters", "id"),
}
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["text", "input_ids", "query", "x"]),
        "datatype": st.sampled_from(["BYTES", "INT64", "FP32", "FP16", "BOOL", "x"]),
        "shape": st.lists(st.integers(-2, 2**40), max_size=3),
        "data": st.lists(st.text(max_size=3) | st.integers(-1, 300), max_size=3),
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-5, 5)),
    },
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.lists(TENSORS, max_size=2)
    | st.sampled_from(["left", "base64", "true", "null", "", "embedder", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "sentences", "a"]), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("path", ROUTES)
def test_no_body_is_a_fault(server: Running, path: str) -> None:
    with server.client() as client:

        @given(st.dictionaries(st.sampled_from(ROUTES[path]), VALUES), st.binary(max_size=3))
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        def send(body: dict[str, object], behind: bytes) -> None:
            raw = json.dumps(body).encode("utf-8", "surrogatepass") + behind
            answer = client.post(path, content=raw)
            assert answer.status_code < 500, (raw, answer.text)
            if answer.status_code != 200:
                assert len(answer.text) > 20  # a sentence

        send()


def test_bytes_that_are_no_json_are_refused(http: httpx.Client) -> None:
    for raw in (b"\x00", b"\xff\xfe", b"{" * 1000, b'"' * 999, b"{}{}", b"nul", b'{"a":1e}', b"\xef\xbb\xbf{}"):
        for path in ROUTES:
            assert 400 <= http.post(path, content=raw).status_code < 500, (path, raw)
