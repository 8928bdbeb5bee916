"""The page at ``/``: static files without a build step, and what they ask of the server beside the API itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata, resources
from typing import Any

from google.protobuf import json_format

from ...config import ServerConfig
from ...engine.outputs.nli import NliLogits
from ...engine.results import ModelInfo
from .answers import Answer, json_answer
from .errors import PLAIN
from .routes import Asked, Route, Services

FOLDER = "/ui"
"""Below it are the files; in pages and sheets they stand as relative paths, so a proxy may put all below a path."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-cache"),
    ("vary", "accept"),
)


class Page:
    """``/``, its files, and what is loaded."""

    def __init__(self, services: Services, config: ServerConfig, grpc_port: Callable[[], int]) -> None:
        """``grpc_port`` tells where gRPC listens, once it does."""
        self._services = services
        self._config = config
        self._grpc_port = grpc_port
        found = resources.files(__package__).joinpath("static")
        self._files = {each.name: _file(each.name, each.read_bytes()) for each in found.iterdir()}

    @property
    def routes(self) -> Iterable[Route]:
        """All of them. None is part of the API, and of the OpenAPI document."""
        yield Route.get("/", self.root, PLAIN, "A page for people", guarded=False)
        yield Route.get(f"{FOLDER}/about", self.about, PLAIN, "What is loaded, for the page", dict[str, Any])
        for name in sorted(self._files):
            if name != "index.html":
                yield Route.get(f"{FOLDER}/{name}", self.file, PLAIN, "A file of the page", guarded=False)

    async def root(self, asked: Asked[Any]) -> Answer:
        """The page for a browser; an empty body for TEI's clients, who only look for 200."""
        if "text/html" in asked.exchange.header("accept"):
            return self._files["index.html"]
        return Answer(media_type="text/plain; charset=utf-8", headers=(("vary", "accept"),))

    async def file(self, asked: Asked[Any]) -> Answer:
        """A sheet, a script, the icon."""
        return self._files[asked.path.rstrip("/").rpartition("/")[2]]

    async def about(self, asked: Asked[Any]) -> Answer:
        """The models in the order of their names, with how far they are from the original."""
        models = self._services.engine().models
        found = {
            "version": metadata.version("pairwire"),
            "grpc_port": self._grpc_port(),
            "tls": self._config.tls.tls_cert is not None,
            "models": [_described(models[name]) for name in sorted(models)],
        }
        return await json_answer(found, headers=(("cache-control", "no-store"),))


def _file(name: str, content: bytes) -> Answer:
    return Answer(content, media_type=_TYPES[name[name.rindex(".") :]], headers=_HEADERS)


def _described(info: ModelInfo) -> dict[str, Any]:
    manifest = info.manifest
    variant = next((each for each in manifest.variants if each.name == info.variant), None)
    parity = variant.parity if variant is not None and variant.HasField("parity") else None
    return {
        "name": info.name,
        "kind": info.kind.value,
        "source": manifest.source,
        "variant": info.variant,
        "provider": info.runtime.provider,
        "workers": info.workers,
        "threads": info.runtime.intra_op_threads,
        "max_length": info.max_length,
        "labels": list(manifest.labels),
        "classifies": NliLogits.of(manifest.labels) is not None,
        "dimensions": manifest.dimensions,
        "similarity": manifest.similarity,
        "parity": None
        if parity is None
        else json_format.MessageToDict(
            parity, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ),
    }
