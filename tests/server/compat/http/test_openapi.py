"""schemathesis calls what the OpenAPI document describes, and the server answers as it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.server.compat.http.running import Running

EXAMPLES = 2
"""Of each operation and mode: there are some sixty, and this is a test of seconds."""


@schemathesis.check
def no_fault(ctx: Any, response: Any, case: Any) -> None:
    """No 5xx, but where the caller itself gave hardly any time."""
    timeout = {name.lower() for name in (case.headers or {})} & {"x-request-timeout"}
    assert response.status_code < 500 or (response.status_code == 504 and timeout), response.text


CHECKS = [
    no_fault,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(server: Running) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_everything_is_answered_as_the_document_says(
    server: Running, document: dict[str, Any], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    called = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method == "get" and mode is GenerationMode.NEGATIVE:
            continue  # there is nothing in them to be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def call(case: Any) -> None:
            nonlocal called
            response = case.call(base_url=server.url)
            called += 1
            case.validate_response(response, checks=CHECKS)

        call()
    assert called > 30


def test_every_route_that_takes_something_is_described(server: Running, document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    assert {"/v1/embeddings", "/v1/rerank", "/rerank", "/score", "/embed", "/predict", "/info", "/"} <= set(paths)
    assert paths["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "prompt_tokens" in document["components"]["schemas"]["TokenUsage"]["properties"]


def test_what_is_described_can_be_read_without_a_key(http: httpx.Client) -> None:
    assert http.get("/openapi.json", headers={"authorization": "Bearer nothing"}).status_code == 200
