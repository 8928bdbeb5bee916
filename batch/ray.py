"""Pairwire on Ray Serve: a deployment whose gRPC proxy speaks `pairwire.v1`, so that clients need no change.

Ray routes each call to a replica and adds replicas as calls wait; inside a replica the engine makes batches as ever.
Example, on a cluster or on this machine::

    serve.start(grpc_options=grpc_options(port=50051))
    serve.run(deployment("models/demo", max_replicas=4))
    Client("localhost:50051").rerank("a query", ["a document", "another"])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from ray import serve
from ray.serve.config import gRPCOptions

from pairwire.server.config import RequestLimits
from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.errors import NotReady
from pairwire.server.rpc.embedding import EmbeddingServicer
from pairwire.server.rpc.model import ModelServicer
from pairwire.server.rpc.scoring import ScoringServicer
from pairwire.server.rpc.status import code_of
from pairwire.server.rpc.wire import INLINE_BYTES

SERVICER_FUNCTIONS = (
    "pairwire.v1.scoring_pb2_grpc.add_ScoringServiceServicer_to_server",
    "pairwire.v1.embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server",
    "pairwire.v1.model_pb2_grpc.add_ModelServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
"""What Ray's gRPC proxy has to know: import paths, on every node."""


def grpc_options(port: int = 9000, timeout_s: float | None = None) -> gRPCOptions:
    """Options of ``serve.start``: the port of the proxies, and most seconds of a call."""
    return gRPCOptions(port=port, grpc_servicer_functions=list(SERVICER_FUNCTIONS), request_timeout_s=timeout_s)


def deployment(
    *packages: str | Path,
    name: str = "pairwire",
    min_replicas: int = 1,
    max_replicas: int = 1,
    waiting_calls: float = 8,
    num_cpus: float = 1,
    num_gpus: float = 0,
    engine: dict[str, Any] | None = None,
) -> serve.Application:
    """An application for ``serve.run``.

    Args:
        packages: directories of model packages, on every node.
        name: of the deployment.
        min_replicas: replicas that are always there.
        max_replicas: most of them.
        waiting_calls: calls under way for each replica that Ray aims at; with more it adds replicas.
        num_cpus: of a replica; the engine has as many workers, unless ``engine`` says otherwise.
        num_gpus: of a replica.
        engine: fields of `pairwire.server.engine.EngineConfig`.

    Raises:
        ValueError: no package.
        pairwire.server.errors.ConfigInvalid: an engine setting that cannot work.
    """
    if not packages:
        raise ValueError("packages: give at least one directory")
    settings = {"workers": 0 if num_gpus else max(1, int(num_cpus)), **(engine or {})}
    EngineConfig(**settings)
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": max(1, int(8 * waiting_calls)),
        "ray_actor_options": {"num_cpus": num_cpus, "num_gpus": num_gpus},
        "autoscaling_config": {
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": waiting_calls,
        },
    }
    bound: serve.Application = (
        serve.deployment(Replica).options(**options).bind([str(package) for package in packages], settings)
    )
    return bound


class Refused(Exception):
    """What a replica raises to Ray: the sentence alone. The code goes another way."""


class Encoded:
    """An answer that is bytes already, for Ray, which serialises what it gets."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def SerializeToString(self) -> bytes:  # as messages call it
        """The bytes."""
        return self._raw


class Replica:
    """One engine behind Ray's gRPC proxy: a method for each RPC, by its name."""

    def __init__(self, packages: Sequence[str], settings: dict[str, Any]) -> None:
        self._packages = packages
        self._config = EngineConfig(**settings)
        self._engine: Engine | None = None
        self._opening = asyncio.Lock()
        limits = RequestLimits()
        servicers = (
            ScoringServicer(self._opened, limits),
            EmbeddingServicer(self._opened, limits),
            ModelServicer(self._opened),
        )
        self._methods = {method.name: method for servicer in servicers for method in servicer.methods}

    async def Score(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.ScoringService/Score."""
        return await self._answer("Score", request, grpc_context)

    async def Rerank(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.ScoringService/Rerank."""
        return await self._answer("Rerank", request, grpc_context)

    async def Classify(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.ScoringService/Classify."""
        return await self._answer("Classify", request, grpc_context)

    async def Embed(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.EmbeddingService/Embed."""
        return await self._answer("Embed", request, grpc_context)

    async def EmbedSparse(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.EmbeddingService/EmbedSparse."""
        return await self._answer("EmbedSparse", request, grpc_context)

    async def ListModels(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.ModelService/ListModels."""
        return await self._answer("ListModels", request, grpc_context)

    async def GetModel(self, request: Message, grpc_context: Any) -> Any:
        """pairwire.v1.ModelService/GetModel."""
        return await self._answer("GetModel", request, grpc_context)

    async def Check(self, request: Message) -> health_pb2.HealthCheckResponse:
        """grpc.health.v1: SERVING once the models are warm."""
        await self._open()
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Watch(self, request: Message) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """grpc.health.v1: the same, and then nothing: the proxy turns to other replicas where this one ends."""
        yield await self.Check(request)

    async def check_health(self) -> None:
        """What Ray asks of a replica: raises where it must be replaced.

        Raises:
            NotReady: the engine has died.
        """
        if self._engine is not None and self._engine.statistics().failed:
            raise NotReady("the engine has died")

    async def _answer(self, name: str, request: Message, context: Any) -> Any:
        await self._open()
        try:
            answer = await self._methods[name].call(request, None, request.ByteSize() > INLINE_BYTES)
        except Exception as error:
            context.set_code(code_of(error))
            context.set_details(str(error))
            raise Refused(str(error)) from None  # Ray pickles it, which errors with several arguments do not survive
        return Encoded(answer) if isinstance(answer, bytes) else answer

    async def _open(self) -> None:
        """Loads the models, once, on the loop that serves: Ray makes replicas on another."""
        async with self._opening:
            if self._engine is None:
                self._engine = await Engine.open(*self._packages, config=self._config)

    def _opened(self) -> Engine:
        if self._engine is None:
            raise NotReady("the models are being loaded; try again soon")
        return self._engine
