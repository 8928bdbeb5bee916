"""All routes on one application, and the application on a port; needs the ``http`` extra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry

from ...clock import Clock
from ...config import ServerConfig
from ...repository.control import Control
from ...rpc.interceptors import Interceptor
from ...rpc.traffic import Traffic
from ...security.access import Access
from ...security.roles import NOTHING, Need
from ..kserve_statistics import Statistics
from .app import HttpApp
from .cors import Cors
from .kserve import KServe
from .listener import HttpListener
from .openai import OpenAi
from .openapi import OpenApi
from .page import Page
from .probes import Probes
from .rerank import Rerank
from .routes import Route, Services
from .tei.info import InfoPage
from .tei.labels import Labels
from .tei.root import Root
from .tei.tokens import Tokens
from .tei.vectors import Vectors
from .tei.zero_shot import ZeroShot
from .vllm import Vllm


def all_routes(
    services: Services,
    config: ServerConfig,
    healthy: Callable[[str], bool],
    registry: CollectorRegistry,
    statistics: Statistics,
    control: Control,
    metrics: Need = NOTHING,
) -> Iterable[Route]:
    """Everything that is served."""
    vectors, labels, zero_shot = Vectors(services), Labels(services), ZeroShot(services)
    for family in (
        Probes(healthy, registry, metrics),
        OpenAi(services),
        Rerank(services, labels),
        Vllm(services),
        vectors,
        labels,
        zero_shot,
        Tokens(services),
        InfoPage(services, config),
        Root(services, vectors, labels, zero_shot),
        KServe(services, statistics, healthy, control),
    ):
        yield from family.routes


def with_document(routes: Iterable[Route], need: Need | None = NOTHING) -> list[Route]:
    """And what describes them, to callers who have what it needs; None leaves it out."""
    listed = list(routes)
    return listed if need is None else [*listed, *OpenApi(listed, need).routes]


def build_listener(
    config: ServerConfig,
    services: Services,
    *,
    healthy: Callable[[str], bool],
    registry: CollectorRegistry,
    statistics: Statistics,
    control: Control,
    interceptors: Sequence[Interceptor],
    traffic: Traffic,
    access: Access,
    clock: Clock,
    grpc_port: Callable[[], int],
) -> HttpListener:
    """The HTTP side of a server, which does not listen yet. ``interceptors`` and ``traffic`` are those of gRPC."""
    page = Page(services, config, grpc_port)
    app = HttpApp(
        [
            *with_document(
                all_routes(services, config, healthy, registry, statistics, control, access.metrics),
                access.reflection,
            ),
            *page.routes,
        ],
        interceptors=interceptors,
        traffic=traffic,
        access=access,
        limits=config.limits,
        clock=clock,
        cors=Cors(config.http.http_cors_origins),
        send_timeout_s=config.connections.upload_timeout_s,
    )
    return HttpListener(app, config.listen, config.connections_of_a_port())
