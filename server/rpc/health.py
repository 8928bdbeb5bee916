"""grpc.health.v1: Check, Watch and List over a board of names.

grpcio's own servicer is not used: it starts as SERVING, does not list, and its watchers hold the server open for ever
when it drains; these get NOT_SERVING and then end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TypeAlias

import grpc
from grpc_health.v1 import health_pb2

from .tolerant import streaming, unary

OVERALL = ""
"""The name under which load balancers ask for the whole server."""

SERVICES = ("pairwire.v1.ScoringService", "pairwire.v1.EmbeddingService", "pairwire.v1.ModelService")
"""Each service has a health of its own."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Status: TypeAlias = "health_pb2.HealthCheckResponse.ServingStatus.ValueType"


def model_health_name(model: str) -> str:
    """The name of a model's own health: ``model/<name>``."""
    return f"model/{model}"


def is_of_a_model(name: str) -> bool:
    """Whether that is the name of a model's own health."""
    return name.startswith(model_health_name(""))


class HealthBoard:
    """Who serves. Every name starts as not serving; all calls come from the event loop's thread."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        """``more`` are names of services beside our own."""
        self._serving = dict.fromkeys((OVERALL, *SERVICES, *more), False)
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing will serve again."""
        return self._closed

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change; take it before reading the board."""
        return self._changed

    def names(self) -> tuple[str, ...]:
        """Every name on the board."""
        return tuple(self._serving)

    def serving(self, name: str) -> bool | None:
        """Whether it serves; None where the name is unknown."""
        return self._serving.get(name)

    def set(self, serving: Mapping[str, bool]) -> None:
        """Sets names, new or known, and wakes the watchers. After ``close`` it does nothing."""
        if not self._closed:
            self._serving.update(serving)
            self._notify()

    def forget(self, names: Iterable[str]) -> None:
        """Drops names; who watches them learns that they are unknown."""
        gone = list(names)
        if gone and not self._closed:
            for name in gone:
                self._serving.pop(name, None)
            self._notify()

    def close(self) -> None:
        """Nothing serves from now on, for good."""
        self.set(dict.fromkeys(self._serving, False))
        self._closed = True
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class HealthService:
    """Shows a board."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for an unknown name, as the protocol wants it."""
        status = self._status(request.service)
        if status == _UNKNOWN:
            known = ", ".join(repr(name) for name in self._board.names())
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no health of that name here; there are {known}")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(
        self,
        request: health_pb2.HealthListRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthListRequest, health_pb2.HealthListResponse],
    ) -> health_pb2.HealthListResponse:
        """All statuses now."""
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._board.names()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and at each change, until the board closes."""
        last: Status | None = None
        while True:
            changed = self._board.changed
            status = self._status(request.service)
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            elif self._board.closed:
                return
            if not self._board.closed:
                await changed.wait()

    def _status(self, name: str) -> Status:
        serving = self._board.serving(name)
        if serving is None:
            return _UNKNOWN
        return _SERVING if serving else _NOT_SERVING


def health_handler(board: HealthBoard) -> grpc.GenericRpcHandler:
    """The service, to be put on a server."""
    service = HealthService(board)
    name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    return grpc.method_handlers_generic_handler(
        name,
        {
            "Check": unary(service.Check, health_pb2.HealthCheckRequest),
            "List": unary(service.List, health_pb2.HealthListRequest),
            "Watch": streaming(service.Watch, health_pb2.HealthCheckRequest),
        },
    )
