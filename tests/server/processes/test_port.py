"""The port is ours alone, for as many of our own as we like."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pairwire.server.errors import ConfigInvalid
from pairwire.server.processes.port import ReservedPort


def listener(port: int, *, shared: bool, host: str = "127.0.0.1") -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


@pytest.fixture
def reserved() -> Iterator[ReservedPort]:
    with ReservedPort("127.0.0.1", 0) as reserved:
        yield reserved


def test_any_free_port_becomes_one_number_that_several_may_listen_on(reserved: ReservedPort) -> None:
    assert reserved.port > 0
    with listener(reserved.port, shared=True) as first, listener(reserved.port, shared=True) as second:
        assert first.getsockname() == second.getsockname() == ("127.0.0.1", reserved.port)


def test_nothing_listens_before_a_server_does(reserved: ReservedPort) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reserved.port), timeout=5)


def test_who_does_not_share_cannot_listen_beside_a_server(reserved: ReservedPort) -> None:
    with listener(reserved.port, shared=True), pytest.raises(OSError, match="in use"):
        listener(reserved.port, shared=False)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_stranger_on_the_port_is_found_even_where_it_shares(shared: bool, host: str) -> None:
    with listener(0, shared=shared) as stranger:
        port = stranger.getsockname()[1]
        sentence = rf"^port: cannot listen on {host}:{port}: it is in use; choose another --host or --port$"
        with pytest.raises(ConfigInvalid, match=sentence):
            ReservedPort(host, port)


def test_a_second_supervisor_finds_the_first(reserved: ReservedPort) -> None:
    with pytest.raises(ConfigInvalid, match="it is in use"):
        ReservedPort("127.0.0.1", reserved.port)


def test_a_port_that_was_given_up_can_be_had_again() -> None:
    with ReservedPort("localhost", 0) as first:
        pass
    with ReservedPort("localhost", first.port) as second:
        assert second.port == first.port


def test_connections_that_are_closing_down_do_not_hold_the_port() -> None:
    with listener(0, shared=True) as before:
        address = before.getsockname()
        client = socket.create_connection(address, timeout=5)
        before.accept()[0].close()  # this end closes first, and so waits for a minute
        client.close()
    with ReservedPort(*address) as reserved:
        assert reserved.port == address[1]


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"192\.0\.2\.1:0: it is not an address of this machine"):
        ReservedPort("192.0.2.1", 0)


def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match=r"port: cannot listen on nowhere\.invalid:0: "):
        ReservedPort("nowhere.invalid", 0)
