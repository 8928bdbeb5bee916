"""Puts services, health and reflection on one grpc.aio server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc
from grpc_health.v1 import health_pb2

from ..config import ConnectionConfig, ListenConfig, RequestLimits
from ..errors import ConfigInvalid
from ..security.access import Access
from ..security.certificates import Certificates
from .credentials import server_credentials
from .handlers import handler_of
from .health import HealthBoard, health_handler
from .interceptors import Interceptor
from .method import Servicer
from .reflection import add_reflection
from .traffic import Traffic

MARGIN_BYTES = 1 << 20
"""gRPC's own limit is so much above --max-message-bytes: what lies between is read, and answered with a sentence."""

_ALGORITHMS = 0b111
"""Ways to compress a message, as a set of bits: none, deflate and gzip."""

_MOST_PENDING = 1 << 30
_NEVER_MS = 2**31 - 1


def build_server(
    servicers: Iterable[Servicer],
    board: HealthBoard,
    *,
    interceptors: Sequence[Interceptor],
    limits: RequestLimits,
    connections: ConnectionConfig,
    traffic: Traffic,
    access: Access,
    share_port: bool = False,
) -> grpc.aio.Server:
    """A server that is not listening yet. The first interceptor is the outermost.

    ``traffic`` bounds its messages, ``access`` says who may send them.
    ``share_port`` is for processes of one supervisor; two servers that do not know of each other would share the
    connections of a port, where people expect an error.
    """
    server = grpc.aio.server(options=_options(limits, connections, share_port))
    names = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
    for servicer in servicers:
        handlers = {
            method.name: handler_of(method, interceptors, limits, traffic, access) for method in servicer.methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(servicer.service, handlers),))
        names.append(servicer.service)
    server.add_generic_rpc_handlers((health_handler(board),))
    if access.reflection is not None:
        add_reflection(server, names, access, access.reflection)
    return server


def bind(server: grpc.aio.Server, listen: ListenConfig, certificates: Certificates | None) -> int:
    """Listens, and returns the port.

    Raises:
        ConfigInvalid: the address is taken or not this machine's.
    """
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    address = f"{host}:{listen.port}"
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, server_credentials(certificates))
    except RuntimeError:  # grpc tells the reason to its own log only
        raise ConfigInvalid(
            f"port: cannot listen on {address}: it is in use or not an address of this machine; "
            "choose another --host or --port"
        ) from None


def _options(limits: RequestLimits, connections: ConnectionConfig, share_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.max_message_bytes + MARGIN_BYTES),
        ("grpc.max_concurrent_streams", connections.max_streams_per_connection),
        # Without this the server takes fewer than it has said, and refuses calls that the client may make.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_allowed_incoming_connections", connections.connection_limit()),
        ("grpc.max_connection_idle_ms", _milliseconds(connections.max_connection_idle_s)),
        ("grpc.compression_enabled_algorithms_bitset", _ALGORITHMS),
        # gRPC inflates a message as a whole, however large that makes it, before it looks at the size: inflate.py does.
        ("grpc.per_message_decompression", 0),
        ("grpc.max_send_message_length", -1),
        # Calls that have come and are not yet looked at. From 1000 on gRPC would cancel more and more of them unseen:
        # without a reason, without push-back and in no metric.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ("grpc.keepalive_time_ms", _milliseconds(connections.keepalive_time_s)),
        ("grpc.keepalive_timeout_ms", _milliseconds(connections.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(connections.min_ping_interval_s * 1000)),
        ("grpc.max_connection_age_ms", _milliseconds(connections.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(connections.max_connection_age_grace_s)),
    ]


def _milliseconds(seconds: float) -> int:
    """The number that gRPC wants for a duration; 0 stands for never."""
    return int(seconds * 1000) or _NEVER_MS
