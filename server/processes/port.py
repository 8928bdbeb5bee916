"""The one port of several processes: resolved and reserved before any of them listens."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ..addresses import ABSENT, REASONS, addresses_of
from ..banner import bracketed
from ..errors import ConfigInvalid

_TRIES = 16


class ReservedPort:
    """Holds a port, without listening, for processes of this user that set SO_REUSEPORT, until ``close``.

    The sockets are bound exclusively, and opened to sharing only then: a stranger's listener is found even where it
    shares its port. What only holds a port without listening cannot be found that way, so supervisors find each other
    by a name that they hold as well.
    """

    def __init__(self, host: str, port: int, *, option: str = "port") -> None:
        """Reserves the port on every address of the host; 0 takes any free one. ``option`` is what sets the port.

        Raises:
            ConfigInvalid: taken, not this machine's, or not allowed.
        """
        self._sockets: list[socket.socket] = []
        self.port = port
        try:
            addresses = addresses_of(host)
            for remaining in reversed(range(_TRIES)):
                try:
                    self._bind(addresses, port)
                    break
                except OSError:  # with port 0: the port that is free on one address may be taken on the next
                    if port or not remaining:
                        raise
        except OSError as error:
            reason = REASONS.get(error.errno or 0, error.strerror or str(error))
            raise ConfigInvalid(
                f"{option}: cannot listen on {bracketed(host)}:{port}: {reason}; "
                f"choose another --host or --{option.replace('_', '-')}"
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
                    if error.errno not in ABSENT:
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
