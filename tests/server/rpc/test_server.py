"""The server as a whole: what it offers, on which port, behind which certificates."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import Default

from pairwire.server.app import Application
from pairwire.server.config import ConnectionConfig, ListenConfig, RequestLimits, ServerConfig, TlsConfig
from pairwire.server.errors import ConfigInvalid
from pairwire.server.repository.control import Control
from pairwire.server.rpc.embedding import EmbeddingServicer
from pairwire.server.rpc.method import Servicer
from pairwire.server.rpc.model import ModelServicer
from pairwire.server.rpc.scoring import ScoringServicer
from pairwire.v1 import model_pb2
from pairwire.v1.model_pb2_grpc import ModelServiceStub
from tests.server import serving

CERTIFICATES = Path(__file__).parent / "certificates"
MUTUAL_TLS = TlsConfig(
    tls_cert=CERTIFICATES / "server.pem", tls_key=CERTIFICATES / "server.key", tls_client_ca=CERTIFICATES / "ca.pem"
)


def no_engine() -> object:
    raise AssertionError("not needed to know the methods")


@pytest.mark.parametrize(
    "servicer",
    [
        ScoringServicer(no_engine, RequestLimits()),  # type: ignore[arg-type]  # never called
        EmbeddingServicer(no_engine, RequestLimits()),  # type: ignore[arg-type]  # never called
        ModelServicer(no_engine, Control(None, allowed=False)),  # type: ignore[arg-type]  # never called
    ],
    ids=lambda servicer: servicer.service,
)
def test_every_rpc_of_the_contract_is_served(servicer: Servicer) -> None:
    contract = Default().FindServiceByName(servicer.service)
    served = {method.name: method.request_type.DESCRIPTOR.full_name for method in servicer.methods}
    assert served == {method.name: method.input_type.full_name for method in contract.methods}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_it_listens_where_it_is_told(host: str, scorer_package: Path) -> None:
    settings = dataclasses.replace(
        serving.config(scorer_package), listen=ListenConfig(host=host, port=0, metrics_port=-1)
    )
    async with serving.serve(settings=settings) as served:
        address = f"[{host}]" if ":" in host else host
        async with grpc.aio.insecure_channel(f"{address}:{served.application.port}") as channel:
            assert (await ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest())).models


async def test_a_port_that_is_taken_is_a_sentence(scorer_package: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        application = Application(ServerConfig(models=(scorer_package,), listen=ListenConfig(port=port)))
        with pytest.raises(ConfigInvalid, match=f"port: cannot listen on 127.0.0.1:{port}: it is in use"):
            await application.listen()
        await application.abort()


async def test_two_servers_do_not_share_a_port(scorer: serving.Served, scorer_package: Path) -> None:
    listen = ListenConfig(port=scorer.application.port, metrics_port=-1)
    second = Application(ServerConfig(models=(scorer_package,), listen=listen))
    with pytest.raises(ConfigInvalid, match="it is in use"):
        await second.listen()
    await second.abort()


async def test_no_model_is_a_sentence() -> None:
    application = Application(ServerConfig())
    with pytest.raises(ConfigInvalid, match="give at least one package directory"):
        await application.listen()
    await application.abort()


async def test_connections_that_never_age_and_are_never_pinged_work(scorer_package: Path) -> None:
    never = ConnectionConfig(keepalive_time_s=0, min_ping_interval_s=0, max_connection_age_s=0)
    async with serving.serve(settings=dataclasses.replace(serving.config(scorer_package), connections=never)) as served:
        assert (await served.models.ListModels(model_pb2.ListModelsRequest())).models


def credentials(*, with_own_certificate: bool) -> grpc.ChannelCredentials:
    authority = (CERTIFICATES / "ca.pem").read_bytes()
    if not with_own_certificate:
        return grpc.ssl_channel_credentials(authority)
    key, chain = (CERTIFICATES / "client.key").read_bytes(), (CERTIFICATES / "client.pem").read_bytes()
    return grpc.ssl_channel_credentials(authority, key, chain)


async def test_mutual_tls_serves_those_who_show_a_certificate_and_no_others(scorer_package: Path) -> None:
    settings = dataclasses.replace(serving.config(scorer_package), tls=MUTUAL_TLS)
    async with serving.serve(settings=settings) as served:
        address, request = f"127.0.0.1:{served.application.port}", model_pb2.ListModelsRequest()
        async with grpc.aio.secure_channel(address, credentials(with_own_certificate=True)) as channel:
            assert (await ModelServiceStub(channel).ListModels(request)).models
        async with grpc.aio.secure_channel(address, credentials(with_own_certificate=False)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ModelServiceStub(channel).ListModels(request)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):
            await served.models.ListModels(request)  # in plaintext


@pytest.mark.parametrize(
    ("tls", "sentence"),
    [
        (
            TlsConfig(tls_cert=Path("none.pem"), tls_key=CERTIFICATES / "server.key"),
            "tls_cert: none.pem cannot be read",
        ),
        (TlsConfig(tls_cert=Path(__file__), tls_key=Path(__file__)), "no matching PEM certificate and key"),
    ],
)
async def test_certificates_that_do_not_work_are_a_sentence(
    tls: TlsConfig, sentence: str, scorer_package: Path
) -> None:
    application = Application(dataclasses.replace(serving.config(scorer_package), tls=tls))
    with pytest.raises(ConfigInvalid, match=sentence):
        await application.listen()
    await application.abort()
