"""How the server is: for load balancers, Kubernetes and Prometheus. Never gated, never counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from ...security.roles import Need
from .answers import Answer, encode
from .errors import PLAIN
from .routes import Asked, Route

METRICS_TYPE = CONTENT_TYPE_LATEST


class Probes:
    """Health and metrics."""

    def __init__(self, healthy: Callable[[str], bool], registry: CollectorRegistry, metrics: Need) -> None:
        """``healthy`` tells whether a model works, by its name; of the whole server, where that is empty.

        ``metrics`` is what reading the metrics needs.
        """
        self._need = metrics
        self._healthy = healthy
        self._registry = registry

    @property
    def routes(self) -> Iterable[Route]:
        """All of them."""
        for path in ("/health", "/ping"):
            yield Route.get(path, self.health, PLAIN, "200 while every model serves, else 503", guarded=False)
        yield Route.get(
            "/metrics", self.metrics, PLAIN, "Prometheus metrics of this process", guarded=False, need=self._need
        )

    async def health(self, asked: Asked[Any]) -> Answer:
        """An empty body where all is well, as TEI and vLLM have it."""
        if self._healthy(""):
            return Answer(media_type="text/plain; charset=utf-8")
        body = encode({"error": "the server is loading its models, draining, or a model has failed"})
        return Answer(body, 503, headers=(("retry-after", "1"),))

    async def metrics(self, asked: Asked[Any]) -> Answer:
        """Those of the metrics port."""
        return Answer(await asyncio.to_thread(generate_latest, self._registry), media_type=METRICS_TYPE)
