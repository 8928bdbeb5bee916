"""Who gets which status, in whose words; and when to come again."""

from __future__ import annotations

import inspect

import httpx
import pytest

from pairwire.server import errors
from pairwire.server.compat.http.errors import PLAIN, STATUS_CODES, Family, failed
from pairwire.server.compat.http.openai import OPENAI
from pairwire.server.compat.http.rerank import RERANK
from pairwire.server.compat.http.tei.common import TEI


def test_every_error_has_a_status() -> None:
    ours = {each for _, each in inspect.getmembers(errors, inspect.isclass) if each is not errors.PairwireError}
    assert ours
    assert not [each for each in ours if not set(each.__mro__) & set(STATUS_CODES)]


@pytest.mark.parametrize("family", [PLAIN, OPENAI, RERANK, TEI], ids=lambda family: family.name)
def test_only_faults_of_the_server_and_its_load_are_5xx(family: Family) -> None:
    for kind in (errors.InvalidInput("a", "b"), errors.ModelNotFound("a"), errors.WrongModelKind("a")):
        assert 400 <= family.status_of(kind) < 500
    assert family.status_of(errors.Overloaded("a", retry_after_s=1)) == 429
    assert family.status_of(errors.NotReady("a")) == 503
    assert family.status_of(ValueError("a")) >= 424


def test_push_back_says_when_in_both_units() -> None:
    answer = failed("/v1/rerank", errors.Overloaded("full", retry_after_s=0.25), RERANK)
    assert dict(answer.headers) == {"retry-after": "1", "retry-after-ms": "250"}
    assert dict(failed("/", errors.NotReady("draining"), TEI).headers)["retry-after"] == "1"
    assert not failed("/", errors.InvalidInput("a", "b"), TEI).headers


@pytest.mark.parametrize(
    ("path", "body", "status", "shape"),
    [
        ("/v1/embeddings", {"input": []}, 400, {"error": {"message", "type", "param", "code"}}),
        ("/v1/embeddings", {"input": "a", "model": "x"}, 404, {"error": {"message", "type", "param", "code"}}),
        ("/classify", {"input": 3}, 400, {"error": {"message", "type", "param", "code"}}),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, {"message", "detail", "error"}),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "model": "x"}, 404, {"message", "detail", "error"}),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "model": "embedder"}, 400, {"message", "detail", "error"}),
        ("/embed", {"inputs": ""}, 400, {"error", "error_type"}),
        ("/embed", {"inputs": 3}, 422, {"error", "error_type"}),
        ("/rerank", {"query": "a", "texts": ["b", 3]}, 422, {"error", "error_type"}),
        ("/rerank", {"query": "a", "documents": ["b", 3]}, 400, {"message", "detail", "error"}),
        ("/rerank", {"query": "a"}, 400, {"message", "detail", "error"}),
        ("/embed_all", {"inputs": "a"}, 424, {"error", "error_type"}),
        ("/nothing", {}, 404, {"error"}),
    ],
)
def test_each_family_is_told_in_its_own_words(
    http: httpx.Client, path: str, body: dict[str, object], status: int, shape: object
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status
    found = answer.json()
    if isinstance(shape, dict):
        assert {key: set(found[key]) for key in shape} == shape
    else:
        assert set(found) == shape


def test_a_wrong_method_is_told_the_right_ones(http: httpx.Client) -> None:
    answer = http.get("/v1/rerank")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert http.post("/health").headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is empty"),
        (b"nonsense", "not JSON"),
        (b'{"query": "a", "documents": ["b"', "it ends too early"),
        (b'{"query": "a", "documents": ["\xff"]}', "not valid UTF-8"),
        (b'{"query": "a", "documents": ["b"], "top_n": NaN}', "not JSON"),
        (b'{"query": "a", "documents": ["b"], "top_n": 1e999}', "top_n: number out of range"),
        (b'{"query": "a", "documents": ["b"], "top_n": -1}', "top_n: -1 is not a number of documents"),
        (b'{"query": "a", "documents": ["b", 5]}', "documents[1]: expected a string or an object, got an integer"),
        (b'{"query": "a", "documents": ["b", {"content": "c"}]}', "documents[1].text: missing"),
        (b'{"query": "a"}', "documents: missing"),
        (b"[1]", "request: expected an object, got a list"),
        (b'{"query": "a", "x": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_told_where_and_why(http: httpx.Client, body: bytes, told: str) -> None:
    answer = http.post("/v1/rerank", content=body)
    assert answer.status_code == 400
    assert told in answer.json()["message"]


def test_a_form_is_told_that_it_is_none_of_json(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", data={"query": "a"})
    assert "Content-Type is application/x-www-form-urlencoded" in answer.json()["message"]
