"""The OpenAPI document: written from the routes and the types that they read and give, so it says what they do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

import msgspec

from ...security.roles import NOTHING, Need
from .answers import Answer, encode
from .errors import PLAIN
from .exchange import DEADLINE_HEADER
from .routes import Asked, Route

PATH = "/openapi.json"
_JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_DESCRIPTION = (
    "OpenAI's embeddings, reranking as Cohere, Jina and vLLM have it, text-embeddings-inference, and KServe v2, "
    "over the same models. Unknown fields are ignored, null is as good as absent, and where the server has API keys, "
    "calls show one as `Authorization: Bearer` or `x-api-key`."
)
_FAILURES = {
    "400": "The request cannot be served as it is; the message says why",
    "401": "No API key, or none that this server knows; only where it has keys",
    "403": "The API key may not do that",
    "404": "No model of that name is loaded",
    "408": "The request did not arrive in time",
    "413": "The request is too large",
    "415": "The body is coded in an unknown way",
    "422": "The request cannot be served as it is; the message says why",
    "424": "The model cannot do that, or has failed",
    "429": "There is no room now; Retry-After says when there will be",
    "500": "The server failed; its log says why",
    "503": "The server is loading its models or is about to stop",
    "504": "The deadline would pass, or has passed, before the answer",
}


class OpenApi:
    """``/openapi.json``."""

    def __init__(self, routes: Iterable[Route], need: Need = NOTHING) -> None:
        """``routes`` are all the others; ``need`` is what a caller needs to read of them."""
        self._need = need
        self._document = encode(document([*routes, *self.routes]))

    @property
    def routes(self) -> Iterable[Route]:
        """The one."""
        yield Route.get(PATH, self.show, PLAIN, "This document", dict[str, Any], guarded=False, need=self._need)

    async def show(self, asked: Asked[Any]) -> Answer:
        """The document."""
        return Answer(self._document)


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes."""
    routes = list(routes)
    types = [
        each
        for route in routes
        for given in (
            route.reader.request_type if route.reader else None,
            route.answer_type,
            route.family.error_type,
        )
        for each in (given if isinstance(given, tuple) else (given,))
        if each is not None and each is not Any
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = list(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\.\.\.}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pairwire", "version": metadata.version("pairwire"), "description": _DESCRIPTION},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, path: str, schemas: Iterable[tuple[Any, Mapping[str, Any]]]) -> dict[str, Any]:
    def schema(of: Any) -> Mapping[str, Any]:
        if isinstance(of, tuple):
            return {"anyOf": [schema(each) for each in of]}
        return next((schema for known, schema in schemas if known is of or known == of), {})

    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    operation: dict[str, Any] = {"summary": route.summary, "tags": [route.family.name]}
    if route.guarded:
        parameters.append(
            {
                "name": DEADLINE_HEADER,
                "in": "header",
                "description": "How long the caller waits: seconds, or with a unit, e.g. 0.5 or 250ms",
                "schema": {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s)?$"},
            }
        )
    if parameters:
        operation["parameters"] = parameters
    if route.reader is not None:
        body = {_JSON: {"schema": schema(route.reader.request_type)}}
        operation["requestBody"] = {"required": True, "content": body}
    media_type = _JSON if route.answer_type is not None else "text/plain"
    answered = {media_type: {"schema": schema(route.answer_type) if route.answer_type is not None else {}}}
    error = {_JSON: {"schema": schema(route.family.error_type)}}
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": answered}}
    possible = _FAILURES if route.guarded else ("400", "404", "503") if parameters else ("503",)
    for status in possible:
        responses[status] = {"description": _FAILURES[status], "content": error}
    operation["responses"] = responses
    return operation
