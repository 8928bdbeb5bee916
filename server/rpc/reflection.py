"""grpc.reflection: v1, which current tools ask for first, and v1alpha.

grpcio ships v1alpha only. The two protocols differ in nothing but the package name, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pairwire.foreign.pool import POOL

from ..security.access import Access
from ..security.roles import Need
from .tolerant import conversing, guarded

T = TypeVar("T")

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")


class _Pools:
    """Several descriptor pools as one, for the look-ups of a reflection servicer: the first that knows answers."""

    def __init__(self, pools: Sequence[DescriptorPool]) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:
        """As `DescriptorPool`."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """As `DescriptorPool`."""
        return self._first(lambda pool: pool.FindFileContainingSymbol(symbol))

    def FindMessageTypeByName(self, name: str) -> Any:
        """As `DescriptorPool`."""
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        """As `DescriptorPool`; proto3 has no extensions but those of options."""
        return self._pools[-1].FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:
        """As `DescriptorPool`."""
        return message.file.pool.FindAllExtensions(message)

    def _first(self, find: Callable[[DescriptorPool], T]) -> T:
        for pool in self._pools[:-1]:
            try:
                return find(pool)
            except KeyError:
                continue
        return find(self._pools[-1])


def add_reflection(server: grpc.aio.Server, services: Sequence[str], access: Access, need: Need) -> None:
    """Lets tools such as grpcurl list and call ``services`` without .proto files; callers must have what it needs."""
    _describe_v1()
    pools = _Pools([POOL, descriptor_pool.Default()])
    servicer = reflection.aio.ReflectionServicer([*services, V1, V1ALPHA], pool=pools)
    call = guarded(servicer.ServerReflectionInfo, access, need)
    method = conversing(call, reflection_pb2.ServerReflectionRequest)
    for service in (V1, V1ALPHA):
        handler = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))


def _describe_v1() -> None:
    """Puts the v1 service among the known descriptors, so that tools can describe it too."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    renamed = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()))
