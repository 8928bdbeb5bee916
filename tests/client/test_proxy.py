"""Proxies of the environment: never between this machine and itself, and named where they are in the way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pairwire.client import AsyncClient, Client, ClientOptions, DeadlineExceeded, RetryPolicy, Unavailable
from pairwire.client.proxy import proxy_arguments, proxy_of
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.client.fake_server import FakeServer

ONCE = ClientOptions(retry=RetryPolicy(attempts=1), timeout_s=20)
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")


class RefusingProxy:
    """A proxy that connects nobody; ``asked`` has the first line of each request."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Wakes and ends its thread."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).decode().partition("\r\n")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    for name in (*VARIABLES, "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = RefusingProxy()
    yield found
    found.close()


@pytest.mark.parametrize("variable", VARIABLES)
def test_this_machine_is_reached_without_a_proxy(
    proxy: RefusingProxy, server: FakeServer, variable: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    port = server.address.rpartition(":")[2]
    for address in (f"localhost:{port}", f"127.0.0.1:{port}", f"ipv4:127.0.0.1:{port}", f"dns:///localhost:{port}"):
        with Client(address, options=ONCE) as client:
            assert len(client.score([("a", "b")])) == 1
    with Client([f"127.0.0.1:{port}", f"localhost:{port}"], options=ONCE) as client:
        assert len(client.score([("a", "b")])) == 1
    assert run("score", "a", "b", "--address", f"localhost:{port}").code == 0
    assert proxy.asked == []


async def test_the_asyncio_client_reaches_this_machine_without_a_proxy(
    proxy: RefusingProxy, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    async with AsyncClient(f"localhost:{server.address.rpartition(':')[2]}", options=ONCE) as client:
        assert len(await client.score([("a", "b")])) == 1
    assert proxy.asked == []


@pytest.mark.parametrize("variable", VARIABLES)
async def test_a_proxy_in_the_way_is_named_without_its_password(
    proxy: RefusingProxy, variable: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv(variable, f"http://me:secret@{proxy.address}")
    named = rf"proxy {proxy.address}, which the environment variable {variable} names; set no_proxy=rank\.example to"
    with Client("rank.example:50051", options=ONCE) as client:
        with pytest.raises(Unavailable, match=named) as caught:
            client.score([("a", "b")])
        with pytest.raises(DeadlineExceeded, match=named):
            client.wait_until_ready(timeout_s=0.2)
    assert "secret" not in str(caught.value)
    assert "pairwire serve" not in str(caught.value)
    async with AsyncClient("rank.example:50051", options=ONCE) as asynchronous:
        with pytest.raises(Unavailable, match=named):
            await asynchronous.score([("a", "b")])
    done = run("score", "a", "b", "--address", "rank.example:50051", "--timeout", "5")
    assert done.code == 1
    assert f"environment variable {variable} names" in done.err
    assert "secret" not in done.err
    assert "CONNECT rank.example:50051 HTTP/1.1" in proxy.asked


def test_an_exception_for_a_host_is_kept(proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "other.example, rank.invalid")
    refused = pytest.raises(Unavailable, match="start `pairwire serve`")
    with Client("rank.invalid:50051", options=ONCE) as client, refused:
        client.score([("a", "b")])
    assert proxy.asked == []


LOOPBACK = [
    "localhost:1",
    "LOCALHOST:1",
    "localhost.:1",
    "model.localhost:1",
    "127.0.0.1:1",
    "127.8.9.1:1",
    "0.0.0.0:1",
    "[::1]:1",
    "[::]:1",
    "[::ffff:127.0.0.1]:1",
    "ipv4:127.0.0.1:1",
    "ipv6:[::1]:1",
    "dns:localhost:1",
    "dns:///localhost:1",
    "dns://8.8.8.8/localhost:1",
    "ipv4:10.0.0.1:1,10.0.0.2:1",
]
ELSEWHERE = ["example.org:1", "localhost.example.org:1", "dns:///example.org:1", "10.0.0.1:1", "[2001:db8::1]:1"]
NO_NETWORK = ["unix:/tmp/socket", "unix:///tmp/socket", "unix-abstract:name", "xds:///service"]


def test_which_targets_go_without_a_proxy() -> None:
    environment = {"http_proxy": "http://proxy:3128"}
    for target in LOOPBACK:
        assert proxy_arguments(target) == [("grpc.enable_http_proxy", 0)], target
        assert proxy_of(target, environment) is None, target
    for target in ELSEWHERE:
        assert proxy_arguments(target) == [], target
        assert proxy_of(target, environment) is not None, target
    for target in NO_NETWORK:
        assert proxy_arguments(target) == [], target
        assert proxy_of(target, environment) is None, target


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"http_proxy": ""}, None),
        ({"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://a:1", "all_proxy": "http://a:1"}, None),  # gRPC's rule
        ({"http_proxy": "http://a:1"}, ("http_proxy", "a:1")),
        ({"http_proxy": "http://a:1", "https_proxy": "http://b:2"}, ("https_proxy", "b:2")),
        ({"https_proxy": "http://b:2", "grpc_proxy": "c:3"}, ("grpc_proxy", "c:3")),
        ({"http_proxy": "http://me:secret@a:1"}, ("http_proxy", "a:1")),
        ({"http_proxy": "me:secret@a:1"}, ("http_proxy", "a:1")),
        ({"http_proxy": "http://me:se@cret@a:1/path?x=secret"}, ("http_proxy", "a:1")),
        ({"http_proxy": "http://a"}, ("http_proxy", "a")),
        ({"http_proxy": "http://[secret"}, ("http_proxy", "(not a URL)")),
        ({"http_proxy": "http://a:1", "no_proxy": "10.0.0.0/8"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "example.org,10.1.2.3"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "10.9.0.0/16"}, ("http_proxy", "a:1")),
        ({"http_proxy": "http://a:1", "no_grpc_proxy": "x", "no_proxy": "10.1.2.3"}, ("http_proxy", "a:1")),
    ],
)
def test_which_proxy_it_is(environment: dict[str, str], expected: tuple[str, str] | None) -> None:
    found = proxy_of("10.1.2.3:50051", environment)
    assert (None if found is None else (found.variable, found.address)) == expected
    assert "secret" not in repr(found)
