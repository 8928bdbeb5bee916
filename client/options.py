"""How a client talks to its servers, as value objects. Nothing here opens a connection."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024

DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
_LEAST_BACKOFF_S = 0.01
_AUTHORIZATION = "authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Turns TLS on. PEM files; without ``root_certificates`` gRPC's built-in public roots are trusted."""

    root_certificates: Path | None = None
    client_certificate: Path | None = None
    """Certificate chain that the client shows (mutual TLS); needs ``client_key``."""
    client_key: Path | None = None
    server_name: str = ""
    """Name that the server's certificate must have, where it is not the one in the address."""

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key: give both (mutual TLS) or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a call that found no server ready (UNAVAILABLE) or a full queue (RESOURCE_EXHAUSTED) is sent again.

    gRPC itself does it, inside the call's deadline; a server's push-back (``grpc-retry-pushback-ms``) replaces the
    backoff.
    """

    attempts: int = 5
    """Most times that a call is sent; 1 means no retries; gRPC allows at most 5."""
    initial_backoff_s: float = 0.1
    """At least 10 ms: with 1 ms, gRPC 1.85 was seen never to send a call a third time."""
    max_backoff_s: float = 2.0
    multiplier: float = 2.0
    throttle_tokens: int = 100
    """Each failure takes one token; with half of them gone nothing is retried, so that retries cannot bury a server."""
    throttle_ratio: float = 0.5
    """Tokens that a success gives back."""

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 5:
            raise ValueError(f"attempts: {self.attempts} is not between 1 (no retries) and 5 (gRPC's limit)")
        if min(self.initial_backoff_s, self.max_backoff_s) < _LEAST_BACKOFF_S or self.multiplier <= 0:
            raise ValueError(f"initial_backoff_s and max_backoff_s: at least {_LEAST_BACKOFF_S}; multiplier: above 0")
        if not (1 <= self.throttle_tokens <= 1000 and self.throttle_ratio > 0):
            raise ValueError("throttle_tokens must be between 1 and 1000 and throttle_ratio positive (gRPC's limits)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLimits:
    """How a large input is cut into requests."""

    max_items: int = 256
    """Most pairs, documents or texts of a request."""
    max_bytes: int = 4 * MIB
    """Most bytes of a request; 4 MiB is what a gRPC server takes by default."""
    in_flight: int = 8
    """Most requests of one call that are under way at once: fewer where answers come slowly, see `window`."""

    def __post_init__(self) -> None:
        for name in ("max_items", "max_bytes", "in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """HTTP/2 pings while a call waits, which find a dead connection before its deadline does.

    Servers end connections that ping too often; gRPC's advice is not to go below a minute.
    """

    interval_s: float = 60.0
    timeout_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.interval_s, self.timeout_s) <= 0:
            raise ValueError("interval_s and timeout_s must be positive; use keepalive=None to send no pings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Everything about a client but its addresses."""

    timeout_s: float | None = DEFAULT_TIMEOUT_S
    """Seconds that a request may take, retries included; None means no deadline. A call may give its own."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    split: SplitLimits = field(default_factory=SplitLimits)
    tls: TlsFiles | None = None
    """None means no encryption."""
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Sent with every call, e.g. ``(("authorization", "Bearer ..."),)``; keys in lower case. Not shown by repr."""
    api_key: str = field(default="", repr=False)
    """Key that the server knows; sent with every call as ``authorization: Bearer``. Not shown by repr. Give ``tls`` too
    where the network is not trusted."""
    keepalive: Keepalive | None = field(default_factory=Keepalive)
    max_receive_bytes: int = 64 * MIB
    """Largest answer that is accepted."""
    user_agent: str = "pairwire"

    def __post_init__(self) -> None:
        if self.timeout_s is not None:
            check_timeout(self.timeout_s)
        if not re.fullmatch(r"[!-~]*", self.api_key):
            raise ValueError("api_key: it has spaces or characters that no key has; is something else in its file?")
        if self.api_key and any(key == _AUTHORIZATION for key, _ in self.metadata):
            raise ValueError("api_key and metadata: both have an authorization; give one")
        for key, _ in self.metadata:
            if key != key.lower():
                raise ValueError(f"metadata: gRPC keys are lower case, {key!r} is not")

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """What is sent with every call."""
        key = ((_AUTHORIZATION, f"Bearer {self.api_key}"),) if self.api_key else ()
        return (*self.metadata, *key)


def check_timeout(timeout_s: float) -> None:
    """Refuses what is no time span.

    Raises:
        ValueError: not a positive number (infinity is one).
    """
    if math.isnan(timeout_s) or timeout_s <= 0:
        raise ValueError(f"timeout_s: {timeout_s} is not a positive number of seconds")
