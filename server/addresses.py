"""The addresses that a host's name stands for, as gRPC takes it; and sockets that listen on them."""

from __future__ import annotations

import errno
import socket

WILDCARDS = ("0.0.0.0", "::")
REASONS = {
    errno.EADDRINUSE: "it is in use",
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EACCES: "this user may not use it",
}
"""Why a port cannot be had, in words."""
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What binding an address ends with that this machine lacks."""


def addresses_of(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """What gRPC listens on for a host: for both wildcards one socket for all of IPv6 and IPv4, where there is IPv6."""
    if host in WILDCARDS:
        return [(socket.AF_INET6, "::")] if _has_ipv6() else [(socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def listening_sockets(host: str, port: int, *, share_port: bool) -> list[socket.socket]:
    """Sockets on every address of the host that this machine has, on one port; 0 takes any free one.

    ``share_port`` lets other processes of this user listen on the same port, where they set it too.

    Raises:
        OSError: the port is taken or not allowed, or no address is this machine's.
    """
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses_of(host):
            try:
                each = _bound(family, address, port, share_port)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
                continue
            port = each.getsockname()[1]
            sockets.append(each)
        if not sockets and absent is not None:
            raise absent
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _bound(family: socket.AddressFamily, address: str, port: int, share_port: bool) -> socket.socket:
    each = socket.socket(family, socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        each.bind((address, port))
        each.setblocking(False)
    except OSError:
        each.close()
        raise
    return each


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
