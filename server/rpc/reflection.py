"""grpc.reflection: v1, which current tools ask for first, and v1alpha.

grpcio ships v1alpha only. The two protocols differ in nothing but the package name, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from .tolerant import conversing

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Lets tools such as grpcurl list and call ``services`` without .proto files."""
    _describe_v1()
    servicer = reflection.aio.ReflectionServicer([*services, V1, V1ALPHA])
    method = conversing(servicer.ServerReflectionInfo, reflection_pb2.ServerReflectionRequest)
    for service in (V1, V1ALPHA):
        handler = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))


def _describe_v1() -> None:
    """Puts the v1 service among the known descriptors, so that tools can describe it too."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    renamed = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    descriptor_pool.Default().Add(text_format.Parse(renamed, descriptor_pb2.FileDescriptorProto()))
