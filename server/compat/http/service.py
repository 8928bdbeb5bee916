"""All routes on one application, and the application on a port; needs the ``http`` extra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry

from ...clock import Clock
from ...config import ServerConfig
from ...rpc.interceptors import Interceptor
from ...rpc.traffic import Traffic
from .app import HttpApp
from .cors import Cors
from .listener import HttpListener
from .openai import OpenAiModels
from .probes import Probes
from .routes import Route, Services


def all_routes(services: Services, healthy: Callable[[], bool], registry: CollectorRegistry) -> Iterable[Route]:
    """Everything that is served."""
    yield from Probes(healthy, registry).routes
    yield from OpenAiModels(services).routes


def build_listener(
    config: ServerConfig,
    services: Services,
    *,
    healthy: Callable[[], bool],
    registry: CollectorRegistry,
    interceptors: Sequence[Interceptor],
    traffic: Traffic,
    clock: Clock,
) -> HttpListener:
    """The HTTP side of a server, which does not listen yet. ``interceptors`` and ``traffic`` are those of gRPC."""
    app = HttpApp(
        all_routes(services, healthy, registry),
        interceptors=interceptors,
        traffic=traffic,
        limits=config.limits,
        clock=clock,
        cors=Cors(config.http.http_cors_origins),
        send_timeout_s=config.connections.upload_timeout_s,
    )
    return HttpListener(app, config.listen, config.tls, config.connections_of_a_port())
