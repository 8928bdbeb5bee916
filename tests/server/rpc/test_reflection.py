"""Reflection, as grpcurl uses it: v1 first, then v1alpha."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from pairwire.server.compat import kserve, tei
from pairwire.server.rpc.reflection import V1, V1ALPHA
from tests.server import serving

OURS = {"pairwire.v1.ScoringService", "pairwire.v1.EmbeddingService", "pairwire.v1.ModelService"}
OTHERS = {kserve.SERVICE, *tei.SERVICES}


async def ask(
    channel: grpc.aio.Channel, version: str, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    method = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [answer async for answer in method(iter(requests))]


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_every_listed_service_can_be_described_from_scratch(version: str, scorer: serving.Served) -> None:
    (listed,) = await ask(scorer.channel, version, reflection_pb2.ServerReflectionRequest(list_services="*"))
    services = {service.name for service in listed.list_services_response.service}
    assert services == OURS | OTHERS | {V1, V1ALPHA, "grpc.health.v1.Health"}
    for service in services:
        (answer,) = await ask(
            scorer.channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
        )
        pool = descriptor_pool.DescriptorPool()
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in answer.file_descriptor_response.file_descriptor_proto
        ]
        for file in reversed(files):  # dependencies come after what needs them
            pool.Add(file)
        assert pool.FindServiceByName(service).methods


async def test_an_unknown_symbol_is_told(scorer: serving.Served) -> None:
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.Service")
    (answer,) = await ask(scorer.channel, V1, request)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
