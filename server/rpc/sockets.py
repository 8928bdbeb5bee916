"""The sockets of a port, below gRPC."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

_FILES = Path("/proc/self/fd")


def cut_connections(port: int) -> int:
    """Stops listening on a port, and shuts down what this process has accepted there; how many sockets.

    For the end of a server: gRPC itself cancels what clients send in the moment in which it stops. Calls on a
    connection that has gone are UNAVAILABLE to them; what was sent to them still arrives. Where the system does not
    list open files, nothing is done.
    """
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(each) for each in _sockets() if _is_of(each, port)]
        found.sort(key=_listens, reverse=True)  # or who is cut off would come back
        for each in found:
            with contextlib.suppress(OSError):  # its peer has just closed it
                each.shutdown(socket.SHUT_RDWR)
    return len(found)


def _sockets() -> list[socket.socket]:
    """Copies of all sockets of this process; to be closed."""
    found = []
    for file in list(_FILES.iterdir()) if _FILES.is_dir() else []:
        with contextlib.suppress(OSError):  # closed meanwhile
            copy = os.dup(int(file.name))
            try:
                found.append(socket.socket(fileno=copy))
            except OSError:  # no socket
                os.close(copy)
    return found


def _is_of(each: socket.socket, port: int) -> bool:
    name: object = None
    with contextlib.suppress(OSError):
        name = each.getsockname()
    if isinstance(name, tuple) and name[1:2] == (port,):
        return True
    each.close()
    return False


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
