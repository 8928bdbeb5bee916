"""Addresses and options -> what gRPC needs to open a channel. Pure, but for reading TLS files."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from pathlib import Path

import grpc

from .options import MIB, ClientOptions, RetryPolicy
from .proxy import proxy_arguments

SERVICES = ("pairwire.v1.ScoringService", "pairwire.v1.EmbeddingService", "pairwire.v1.ModelService")
RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")


def target_of(addresses: str | Sequence[str]) -> str:
    """The gRPC target of one address or of several IP addresses that are called in turn.

    One address may be anything that gRPC resolves: ``host:port``, ``dns:///name:port`` (all the addresses of the name
    are called in turn), ``unix:path``.

    Raises:
        ValueError: no address, one without a port, or several that are not all IPv4 or all IPv6.
    """
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    if not given:
        raise ValueError("addresses: at least one is needed, e.g. 'localhost:50051'")
    for address in given:
        _check_port(address)
    if len(given) == 1:
        return given[0]
    families = {_family(address) for address in given}
    if len(families) > 1:
        raise ValueError(f"addresses: {', '.join(given)} mix IPv4 and IPv6; give all of one family")
    return f"{families.pop()}:{','.join(_literal(address) for address in given)}"


def channel_arguments(options: ClientOptions, target: str = "") -> list[tuple[str, str | int]]:
    """The channel arguments for gRPC, for a connection to ``target``."""
    arguments: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config(options.retry))),
        ("grpc.primary_user_agent", options.user_agent),
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", -1),  # the split keeps to its own limit, with a better message
        # A request that does not fit into this buffer is not retried, and gRPC's default is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", options.split.max_bytes + MIB),
        # gRPC's own (1 s, growing to 2 minutes) would let a client sleep long after a restarted server is ready.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5000),
        # Channels of one process would share connections otherwise, and with them their flow-control window.
        ("grpc.use_local_subchannel_pool", 1),
        *proxy_arguments(target),
    ]
    if options.keepalive is not None:
        arguments += [
            ("grpc.keepalive_time_ms", round(options.keepalive.interval_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(options.keepalive.timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 0),
        ]
    if options.tls is not None and options.tls.server_name:
        arguments.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return arguments


def service_config(retry: RetryPolicy) -> dict[str, object]:
    """The service config for gRPC: calls go to the ready servers in turn, and are sent again when that can help.

    With ``healthCheckConfig`` a server that starts or drains leaves the turn before a call has to fail on it; servers
    without the health service count as ready.
    """
    methods: dict[str, object] = {"name": [{"service": service} for service in SERVICES]}
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": [methods],
    }
    if retry.attempts > 1:
        methods["retryPolicy"] = {
            "maxAttempts": retry.attempts,
            "initialBackoff": f"{retry.initial_backoff_s:.3f}s",
            "maxBackoff": f"{retry.max_backoff_s:.3f}s",
            "backoffMultiplier": retry.multiplier,
            "retryableStatusCodes": list(RETRIED),
        }
        config["retryThrottling"] = {"maxTokens": retry.throttle_tokens, "tokenRatio": retry.throttle_ratio}
    return config


def credentials_of(options: ClientOptions) -> grpc.ChannelCredentials | None:
    """TLS credentials, or None for a plain connection.

    Raises:
        OSError: a file of ``options.tls`` cannot be read.
    """
    if options.tls is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(options.tls.root_certificates),
        private_key=_read(options.tls.client_key),
        certificate_chain=_read(options.tls.client_certificate),
    )


def _read(path: Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _check_port(address: str) -> None:
    if re.match(r"(unix|unix-abstract|vsock|xds):", address):
        return
    if not re.search(r":\d+$", address):
        raise ValueError(f"addresses: {address!r} has no port; write it like 'localhost:50051' or 'dns:///name:50051'")


def _literal(address: str) -> str:
    """``localhost`` means the loopback address that `pairwire serve` listens on by default."""
    address = re.sub(r"^ipv[46]:", "", address)
    return re.sub(r"^localhost:", "127.0.0.1:", address)


def _family(address: str) -> str:
    host = _literal(address).rpartition(":")[0].strip("[]")
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        raise ValueError(
            f"addresses: {address!r} is a name; gRPC takes several addresses only as IP addresses. "
            "For a name with several addresses give 'dns:///name:port' alone"
        ) from None
