"""What strangers do with connections: nothing of it takes the server down, and nothing lasts."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pairwire.server.config import ConnectionConfig, HttpConfig, RequestLimits
from tests.server import serving
from tests.server.compat.http.running import Running, read_all, running

RERANK = json.dumps({"query": "a", "documents": ["b", "c"]}).encode()
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def narrow(scorer_package: Path) -> Iterator[Running]:
    """A server with little patience, small limits and room for eight connections of HTTP."""
    settings = dataclasses.replace(
        serving.config(scorer_package, http_port=0, limits=RequestLimits(max_message_bytes=100_000, max_items=50)),
        connections=ConnectionConfig(upload_timeout_s=0.3, max_connections=16, max_connection_idle_s=1.0),
        http=HttpConfig(http_cors_origins=(ORIGIN,)),
    )
    with running(scorer_package, settings=settings) as found:
        yield found


def post(path: str = "/v1/rerank", body: bytes = RERANK, headers: str = "", *, close: bool = True) -> bytes:
    end = "connection: close\r\n" if close else ""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}{end}content-length: {len(body)}\r\n\r\n".encode() + body


def statuses(received: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", received)]


def test_a_head_that_does_not_come_ends_the_connection(narrow: Running) -> None:
    for sent in (b"", b"POST /v1/rer", b"\r\n" * 10, b"GET / HTTP/1.1\r\nhost: x\r\nx: "):
        assert narrow.raw(sent) == b""


def test_a_head_that_never_ends_is_refused(narrow: Running) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=serving.PATIENCE_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
            for _ in range(400):
                connection.sendall(b"x-padding: " + b"y" * 1000 + b"\r\n")
        received = read_all(connection)
    assert statuses(received) in ([431], [])  # where it still sent, it may have been reset


def test_a_body_that_does_not_come_is_408(narrow: Running) -> None:
    sent = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{"
    received = narrow.raw(sent)
    assert statuses(received) == [408]
    assert b"upload-timeout-s" in received


def test_idle_connections_are_closed(narrow: Running) -> None:
    assert statuses(narrow.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")) == [200]


def test_connections_beyond_the_limit_are_closed_and_the_others_served(narrow: Running) -> None:
    assert eventually(lambda: not narrow.application.http_connections)  # of other tests
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", narrow.port)))
        assert eventually(lambda: narrow.application.http_connections == 8)
    with narrow.client() as client:
        assert answered_eventually(client)


def test_idle_connections_make_room_for_new_ones(narrow: Running) -> None:
    assert eventually(lambda: not narrow.application.http_connections)  # of other tests
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", narrow.port)))
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" in connection.recv(1 << 16)


def test_an_answer_that_is_not_read_ends_the_connection(embedder_package: Path) -> None:
    settings = dataclasses.replace(
        serving.config(embedder_package, http_port=0), connections=ConnectionConfig(upload_timeout_s=0.3)
    )
    with running(embedder_package, settings=settings) as server:
        traffic = server.application.traffic
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(serving.PATIENCE_S)
            connection.connect(("127.0.0.1", server.port))
            body = json.dumps({"input": ["a b c"] * 2000}).encode()
            for _ in range(30):  # more than the system takes of it
                with contextlib.suppress(OSError):
                    connection.sendall(post("/v1/embeddings", body, close=False))
            assert eventually(lambda: traffic.arrived > 0 and traffic.inside == 0 and not traffic.held_bytes)


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(10_000):
        if condition():
            return True
        threading.Event().wait(0.005)
    return False


def answered_eventually(client: httpx.Client) -> bool:
    for _ in range(1000):
        with contextlib.suppress(httpx.TransportError):
            return client.get("/health").status_code == 200
    return False


def gzipped(body: bytes) -> bytes:
    """Without the time of day: the names of tests come from it, and are the same in each process of pytest-xdist."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("headers", "body", "status", "told"),
    [
        ("content-encoding: gzip\r\n", gzipped(RERANK), 200, b""),
        ("content-encoding: deflate\r\n", zlib.compress(RERANK), 200, b""),
        ("content-encoding: identity\r\n", RERANK, 200, b""),
        ("content-encoding: gzip\r\n", RERANK, 400, b"the body is not gzip"),
        ("content-encoding: gzip\r\n", gzipped(RERANK)[:-9], 400, b"cut off"),
        ("content-encoding: br\r\n", RERANK, 415, b"is not known here"),
        ("content-encoding: gzip\r\n", gzipped(b" " * 10_000_000), 413, b"once it is inflated"),
        ("content-encoding: gzip\r\n", gzipped(gzipped(b" " * 10_000_000)), 400, b"not valid UTF-8"),
        ("", b" " * 100_001, 413, b"max-message-bytes"),
        ("content-type: text/plain\r\n", RERANK, 200, b""),
        ("content-type: application/json; charset=utf-8\r\n", RERANK, 200, b""),
        ("authorization: Bearer whatever\r\n", RERANK, 200, b""),
        ("x-request-timeout: 10\r\n", RERANK, 200, b""),
        ("x-request-timeout: 9000ms\r\n", RERANK, 200, b""),
        ("x-request-timeout: soon\r\n", RERANK, 400, b"is no time to wait"),
        ("x-request-timeout: nan\r\n", RERANK, 400, b"is no time to wait"),
        ("x-request-timeout: -1\r\n", RERANK, 400, b"is no time to wait"),
        ("x-request-timeout: 0\r\n", RERANK, 400, b"is no time to wait"),
        ("x-request-timeout: 0.000001ms\r\n", RERANK, 504, b""),
        ("expect: 100-continue\r\n", RERANK, 200, b"100 Continue"),
        # Java's client offers HTTP/2 like this with every first request.
        ("upgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n", RERANK, 200, b""),
    ],
)
def test_bodies(narrow: Running, headers: str, body: bytes, status: int, told: bytes) -> None:
    received = narrow.raw(post(body=body, headers=headers))
    assert statuses(received)[-1:] == [status], received
    assert told in received


def test_an_upgrade_that_is_not_taken_leaves_the_connection_usable(narrow: Running) -> None:
    head = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    assert statuses(narrow.raw(post(headers=head, close=False) + post())) == [200, 200]


def test_chunks_are_put_together_and_bounded(narrow: Running) -> None:
    head = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [RERANK[at : at + 5] for at in range(0, len(RERANK), 5)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    assert statuses(narrow.raw(head + chunks + b"0\r\n\r\n")) == [200]
    endless = b"".join(b"%x\r\n%s\r\n" % (1000, b" " * 1000) for _ in range(150))
    assert statuses(narrow.raw(head + endless)) == [413]


def test_requests_in_a_row_are_answered_in_order(narrow: Running) -> None:
    sent = (
        b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" + post(close=False) + b"GET /no HTTP/1.1\r\nhost: x\r\n\r\n" + post()
    )
    assert statuses(narrow.raw(sent)) == [200, 200, 404, 200]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_or_dropped(narrow: Running, sent: bytes) -> None:
    assert all(400 <= status < 500 for status in statuses(narrow.raw(sent)))
    assert statuses(narrow.raw(post())) == [200]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/rerank/", 200),
        ("//v1//rerank", 200),
        ("/v1/rerank?model=x", 200),
        ("/v1/rerank#part", 200),
        ("http://elsewhere/v1/rerank", 200),
        ("/v1/../v1/rerank", 404),
        ("/v1/rerank%00", 404),
        ("/v1%2Frerank", 200),
        ("/" + "a" * 5000, 404),
        ("/V1/RERANK", 404),
    ],
)
def test_paths(narrow: Running, target: str, status: int) -> None:
    assert statuses(narrow.raw(post(target))) == [status]


def test_head_and_options(narrow: Running) -> None:
    with narrow.client() as client:
        assert client.head("/v1/models").status_code == 200
        assert int(client.head("/v1/models").headers["content-length"]) == len(client.get("/v1/models").content)
        found = client.options("/v1/rerank")
        assert (found.status_code, found.headers["allow"]) == (204, "OPTIONS, POST")
        assert client.options("*").status_code == 204


def test_pages_of_other_sites_may_call_only_where_an_option_says_so(narrow: Running, http: httpx.Client) -> None:
    asking = {"origin": ORIGIN, "access-control-request-method": "POST"}
    with narrow.client() as client:
        allowed = client.options("/v1/rerank", headers=asking)
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in allowed.headers["access-control-allow-methods"]
        answer = client.post("/v1/rerank", content=RERANK, headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        strange = client.post("/v1/rerank", content=RERANK, headers={"origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in strange.headers
    assert "access-control-allow-origin" not in http.options("/v1/rerank", headers=asking).headers
