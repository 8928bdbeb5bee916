"""TLS on every port, and certificates that change while calls are made. All certificates are made here."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509

from pairwire.server.config import TlsConfig
from pairwire.server.errors import ConfigInvalid
from pairwire.server.security.certificates import Certificates
from pairwire.v1 import model_pb2
from pairwire.v1.model_pb2_grpc import ModelServiceStub
from tests.server import serving


@dataclass
class Files:
    """What the server reads, and who made it."""

    directory: Path
    authority: trustme.CA
    clients: trustme.CA

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.renew()
        self.renew_clients()

    @property
    def tls(self) -> TlsConfig:
        return TlsConfig(tls_cert=self.directory / "cert", tls_key=self.directory / "key")

    @property
    def mutual(self) -> TlsConfig:
        return replace(self.tls, tls_client_ca=self.directory / "clients")

    def renew(self) -> None:
        """Another certificate, of another authority."""
        self.authority = trustme.CA()
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        (self.directory / "key").write_bytes(made.private_key_pem.bytes())
        (self.directory / "cert").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))

    def renew_clients(self) -> None:
        """Another authority for clients."""
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(self.directory / "clients")

    def trusting(self, *, own: bool = False) -> ssl.SSLContext:
        """A client's side; with a certificate of its own."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        if own:
            self.clients.issue_cert("client@example.org").configure_cert(context)
        return context

    def channel(self, port: int, *, own: bool = False) -> grpc.aio.Channel:
        """The same over gRPC, on a connection of its own."""
        mine = self.clients.issue_cert("client@example.org") if own else None
        credentials = grpc.ssl_channel_credentials(
            self.authority.cert_pem.bytes(),
            mine and mine.private_key_pem.bytes(),
            mine and mine.cert_chain_pems[0].bytes(),
        )
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def serial(port: int, context: ssl.SSLContext) -> int:
    """Of the certificate that a port shows; raises ssl.SSLError where the two do not trust each other."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=serving.PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        if not secured.recv(1):  # with TLS 1.3 it is only now that a client hears of a refusal
            raise ConnectionResetError("closed without an answer")
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def fetch(url: str, context: ssl.SSLContext) -> int:
    with urllib.request.urlopen(url, context=context, timeout=serving.PATIENCE_S) as answer:
        status: int = answer.status
        return status


async def models(channel: grpc.aio.Channel) -> int:
    """A call."""
    answer = await ModelServiceStub(channel).ListModels(
        model_pb2.ListModelsRequest(), timeout=serving.PATIENCE_S, wait_for_ready=False
    )
    return len(answer.models)


async def test_every_port_speaks_tls_and_takes_new_certificates_without_a_failed_call(
    files: Files, scorer_package: Path
) -> None:
    settings = replace(serving.config(scorer_package, http_port=0, metrics_port=0), tls=files.tls)
    async with serving.serve(settings=settings) as served:
        application = served.application
        assert application.http_port is not None
        assert application.metrics_port is not None
        stop, calls = asyncio.Event(), 0

        async def load(channel: grpc.aio.Channel) -> None:
            nonlocal calls
            while not stop.is_set():
                assert await models(channel) == 1  # raises where a call fails
                calls += 1

        async with contextlib.AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(files.channel(application.port)) for _ in range(2)]
            loads = [asyncio.create_task(load(channel)) for channel in channels]
            shown = set()
            for _ in range(3):
                before = calls
                for port in (application.port, application.http_port, application.metrics_port):
                    if port == application.port:
                        async with files.channel(port) as fresh:
                            assert await models(fresh) == 1
                    else:
                        shown.add(await asyncio.to_thread(serial, port, files.trusting()))
                await serving.eventually(lambda before=before: calls > before)  # type: ignore[misc]
                files.renew()
                await application.guard.reload()
            assert len(shown) == 3
            for port in (application.http_port, application.metrics_port):
                path = "/health" if port == application.http_port else "/metrics"
                assert await asyncio.to_thread(fetch, f"https://127.0.0.1:{port}{path}", files.trusting()) == 200
            stop.set()
            await asyncio.gather(*loads)


async def test_files_that_change_are_noticed(files: Files, scorer_package: Path) -> None:
    settings = replace(serving.config(scorer_package, http_port=0), tls=files.tls)
    async with serving.serve(settings=settings) as served:
        port = served.application.http_port
        assert port is not None
        before = await asyncio.to_thread(serial, port, files.trusting())
        files.renew()
        trusting = files.trusting()

        async def renewed() -> bool:
            try:
                return await asyncio.to_thread(serial, port, trusting) != before
            except ssl.SSLError:
                return False

        async with asyncio.timeout(serving.PATIENCE_S):
            while not await renewed():  # noqa: ASYNC110  # nobody else knows
                await asyncio.sleep(0.05)


async def test_a_bad_certificate_changes_nothing_and_says_why(
    files: Files, scorer_package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(serving.config(scorer_package, http_port=0), tls=files.tls)
    async with serving.serve(settings=settings) as served:
        application = served.application
        assert application.http_port is not None
        good = files.trusting()
        certificate = (files.directory / "cert").read_bytes()
        spoilers: tuple[tuple[Callable[[], object], str], ...] = (
            (lambda: (files.directory / "cert").write_text("nonsense"), "no matching PEM certificate and key"),
            (lambda: (files.directory / "cert").unlink(), "cannot be read"),
            (lambda: (files.directory / "cert").write_bytes(other), "no matching PEM certificate and key"),
        )
        other = b"".join(each.bytes() for each in trustme.CA().issue_cert("127.0.0.1").cert_chain_pems)
        channel = files.channel(application.port)
        for spoil, sentence in spoilers:
            caplog.clear()
            spoil()
            await application.guard.reload()
            assert sentence in caplog.text
            assert "the certificate read before stays in force" in caplog.text
            await asyncio.to_thread(serial, application.http_port, good)
            async with files.channel(application.port) as fresh:
                assert await models(fresh) == 1
        (files.directory / "cert").write_bytes(certificate)
        await application.guard.reload()
        assert await models(channel) == 1
        await channel.close()


async def test_clients_are_asked_for_certificates_of_the_authority_in_force(files: Files, scorer_package: Path) -> None:
    settings = replace(serving.config(scorer_package, http_port=0, metrics_port=0), tls=files.mutual)
    async with serving.serve(settings=settings) as served:
        application = served.application
        ports = (application.http_port, application.metrics_port)

        async def accepted(context: ssl.SSLContext, channel: grpc.aio.Channel) -> list[bool]:
            found = []
            for port in ports:
                assert port is not None
                try:
                    await asyncio.to_thread(serial, port, context)
                    found.append(True)
                except (ssl.SSLError, ConnectionError):
                    found.append(False)
            async with channel:
                try:
                    found.append(await models(channel) == 1)
                except grpc.aio.AioRpcError as error:
                    found.append(error.code() is not grpc.StatusCode.UNAVAILABLE)
            return found

        assert await accepted(files.trusting(), files.channel(application.port)) == [False] * 3
        old, old_channel = files.trusting(own=True), files.channel(application.port, own=True)
        assert await accepted(old, files.channel(application.port, own=True)) == [True] * 3
        files.renew_clients()
        await application.guard.reload()
        assert await accepted(files.trusting(own=True), files.channel(application.port, own=True)) == [True] * 3
        assert await accepted(old, old_channel) == [False] * 3


def test_a_key_with_a_password_is_a_sentence_and_no_question(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((files.directory / "key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (files.directory / "key").write_bytes(locked)
    with pytest.raises(ConfigInvalid, match=r"\(the key has a password\)"):
        Certificates(files.tls)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
async def test_sighup_reads_certificates_again_and_ends_nothing(
    processes: int, files: Files, scorer_package: Path
) -> None:
    flags = ("--tls-cert", files.tls.tls_cert, "--tls-key", files.tls.tls_key, "--processes", processes)
    async with serving.start(scorer_package, *map(str, flags)) as process:
        before = await asyncio.to_thread(serial, process.metrics_port, files.trusting())
        files.renew()
        process.signal(signal.SIGHUP)
        trusting = files.trusting()
        async with asyncio.timeout(serving.PATIENCE_S):
            while True:
                with contextlib.suppress(ssl.SSLError):
                    if await asyncio.to_thread(serial, process.metrics_port, trusting) != before:
                        break
                await asyncio.sleep(0.02)
            while True:
                async with files.channel(process.port) as channel:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        assert await models(channel) == 1
                        break
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0
