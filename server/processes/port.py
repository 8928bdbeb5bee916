"""The one port of several processes: resolved and reserved before any of them listens."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ..banner import bracketed
from ..errors import ConfigInvalid

_WILDCARDS = ("0.0.0.0", "::")
_TRIES = 16
_REASONS = {
    errno.EADDRINUSE: "it is in use",
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EACCES: "this user may not use it",
}


class ReservedPort:
    """Holds a port, without listening, for processes of this user that set SO_REUSEPORT, until ``close``.

    The sockets are bound exclusively, and opened to sharing only then: a stranger's listener is found even where it
    shares its port. What only holds a port without listening cannot be found that way, so supervisors find each other
    by a name that they hold as well.
    """

    def __init__(self, host: str, port: int) -> None:
        """Reserves the port on every address of the host; 0 takes any free one.

        Raises:
            ConfigInvalid: taken, not this machine's, or not allowed.
        """
        self._sockets: list[socket.socket] = []
        self.port = port
        try:
            addresses = _addresses(host)
            for remaining in reversed(range(_TRIES)):
                try:
                    self._bind(addresses, port)
                    break
                except OSError:  # with port 0: the port that is free on one address may be taken on the next
                    if port or not remaining:
                        raise
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
            raise ConfigInvalid(
                f"port: cannot listen on {bracketed(host)}:{port}: {reason}; choose another --host or --port"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port up."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()

    def _bind(self, addresses: Sequence[tuple[socket.AddressFamily, str]], port: int) -> None:
        absent: OSError | None = None
        try:
            for family, address in addresses:
                try:
                    held = _bound(family, address, port)
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
                    absent = error  # a name may have addresses that this machine lacks, e.g. ::1 without IPv6
                else:
                    port = held.getsockname()[1]
                    self._sockets.append(held)
                    self._sockets.append(_named(address, port))
            if not self._sockets and absent is not None:
                raise absent
        except OSError:
            self.close()
            raise
        self.port = port


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """What gRPC listens on for a host: for both wildcards one socket for all of IPv6 and IPv4, where there is IPv6."""
    if host in _WILDCARDS:
        return [(socket.AF_INET6, "::")] if _has_ipv6() else [(socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _named(address: str, port: int) -> socket.socket:
    """Holds the address's name in the abstract namespace, which belongs to the network as ports do; leaves no file."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0pairwire/{address}/{port}")
    except OSError:
        name.close()
        raise
    return name


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it connections of an earlier server that are still closing down would hold the port for a minute.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        reserved.bind((address, port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        reserved.close()
        raise
    return reserved
