"""Every option of ``pairwire serve``, defined once. Flags, environment, TOML keys and help are derived (`options`)."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .engine.config import EngineConfig
from .errors import ConfigInvalid

RESERVED_FILES = 256
"""Open files that no client's connection may take: models, logs, and connections for metrics."""
MOST_CONNECTIONS = 65_536

METRICS_OFF = -1
"""The metrics port that means no metrics."""
HTTP_OFF = -1
"""The HTTP port that means no HTTP."""


VARIABLES_OF_THE_CLIENT = frozenset({"PAIRWIRE_ADDRESS", "PAIRWIRE_API_KEY"})
"""Environment variables that look like options but are read by the commands that talk to a server."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListenConfig:
    """Where the server listens."""

    host: str = "127.0.0.1"
    """Address for gRPC, HTTP and metrics: a name or an IP address; 0.0.0.0 or :: for all interfaces."""
    port: int = 50051
    """Port for gRPC; 0 takes any free one and prints it."""
    metrics_port: int = 9090
    """Port for Prometheus metrics (HTTP); 0 takes any free one and prints it, -1 turns metrics off."""
    http_port: int = HTTP_OFF
    """Port for the HTTP protocols (OpenAI, Cohere, TEI, KServe, ...); 0 takes any free one and prints it, -1 is off."""

    def __post_init__(self) -> None:
        _between(self, "port", 0, 65535)
        _between(self, "metrics_port", METRICS_OFF, 65535)
        _between(self, "http_port", HTTP_OFF, 65535)

    def bound_http_port(self) -> int | None:
        """The HTTP port; None where HTTP is off."""
        return None if self.http_port == HTTP_OFF else self.http_port


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpConfig:
    """What only HTTP has."""

    http_cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the HTTP port from a browser, e.g. https://app.example.com, or * for all."""

    def __post_init__(self) -> None:
        for origin in self.http_cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s,]+", origin):
                raise ConfigInvalid(
                    f"http_cors_origins: {origin!r} is no origin; give one, e.g. https://app.example.com, or *"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsConfig:
    """Encryption. All unset means plaintext, for meshes whose sidecars encrypt."""

    tls_cert: Path | None = None
    """PEM file with the server's certificate chain; together with tls_key it turns TLS on, on every port. All TLS files
    are read again when they change and on SIGHUP."""
    tls_key: Path | None = None
    """PEM file with the private key of tls_cert."""
    tls_client_ca: Path | None = None
    """PEM file with the certificate authorities that client certificates must come from (mutual TLS)."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            raise ConfigInvalid(f"{missing}: needed too; TLS takes a certificate and its key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ConfigInvalid("tls_client_ca: mutual TLS needs tls_cert and tls_key too")


SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""What tokens may be signed with: a public key verifies each of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecurityConfig:
    """Who may call. Without api_keys and jwt_keys everybody may, and what they show is not looked at."""

    api_keys: Path | None = None
    """File with the hashes of the keys that calls must show, one a line, as pairwire api-key writes them; read again
    when it changes and on SIGHUP."""
    jwt_keys: Path | None = None
    """File with the public keys of an identity provider (JWKS), whose tokens (JWT) calls may show instead of an API
    key; read again as api_keys is. Needs the extra jwt, jwt_issuer and jwt_audience."""
    jwt_issuer: str = ""
    """What a token must have as iss."""
    jwt_audience: str = ""
    """What a token must have as, or among, aud."""
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    """Signatures that are accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, Ed25519."""
    jwt_roles_claim: str = "roles"
    """Claim with the roles of a token: a list, or words; a.b for one inside another. Roles are infer, operate and
    observe, or pairwire:infer and so on; others are not looked at."""
    reflection: Literal["auto", "open", "observe", "off"] = "auto"
    """Who may ask for gRPC reflection and the OpenAPI document: everybody, keys with the role observe, or nobody. auto
    is observe where there are API keys, else open."""
    metrics_access: Literal["auto", "open", "observe"] = "auto"
    """Who may read the metrics, on each port that has them: everybody, or keys with the role observe. auto is observe
    where there are API keys, else open."""

    def __post_init__(self) -> None:
        for name in ("reflection", "metrics_access"):
            if getattr(self, name) == "observe" and not self.asks:
                raise ConfigInvalid(f"{name}: observe needs API keys or tokens; give --api-keys FILE too")
        for name in ("jwt_issuer", "jwt_audience"):
            if (self.jwt_keys is not None) != bool(getattr(self, name)):
                raise ConfigInvalid(
                    f"{name}: tokens take jwt_keys, jwt_issuer and jwt_audience; give all three or none"
                )
        if not self.jwt_algorithms:
            raise ConfigInvalid(f"jwt_algorithms: empty; give some of {', '.join(SIGNATURES)}")
        for each in self.jwt_algorithms:
            if each not in SIGNATURES:
                raise ConfigInvalid(f"jwt_algorithms: {each!r} is none of {', '.join(SIGNATURES)}")

    @property
    def asks(self) -> bool:
        """Whether callers must show who they are."""
        return self.api_keys is not None or self.jwt_keys is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """What a request may be; more is INVALID_ARGUMENT."""

    max_items: int = 2048
    """Most pairs, documents or texts of a request."""
    max_text_bytes: int = 1 << 20
    """Longest text, in bytes of UTF-8; a token id counts as 4."""
    max_message_bytes: int = 32 << 20
    """Longest request message. From 1 MiB more on, gRPC itself ends the call as RESOURCE_EXHAUSTED."""
    max_answer_bytes: int = 64 << 20
    """Longest answer with vectors; clients of Pairwire take 64 MiB by default, others often only 4 MiB."""

    def __post_init__(self) -> None:
        _between(self, "max_items", 1, 1 << 24)
        _between(self, "max_text_bytes", 1, 1 << 28)
        _between(self, "max_message_bytes", 1024, 1 << 28)
        _between(self, "max_answer_bytes", 1 << 13, 1 << 30)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionConfig:
    """How long connections live, and how the server notices that a peer has gone."""

    keepalive_time_s: float = 60.0
    """Seconds of silence after which the server pings a client; 0 never does."""
    keepalive_timeout_s: float = 20.0
    """Seconds that a client has to answer a ping before its connection is closed."""
    min_ping_interval_s: float = 10.0
    """Minimum seconds between client pings; faster clients are disconnected."""
    max_connection_age_s: float = 1800.0
    """Seconds after which clients are asked to reconnect, so that load spreads to new servers; 0 never does."""
    max_connection_age_grace_s: float = 300.0
    """Seconds that calls on such a connection have to finish."""
    max_connection_idle_s: float = 600.0
    """Seconds without a call after which a connection is closed; clients connect again when they need to. 0 never."""
    max_connections: int = 0
    """Most connections at once; what comes on top is closed. 0 means as many as the limit of open files allows."""
    max_streams_per_connection: int = 1024
    """Most calls at once on one connection; clients keep what is more to themselves until others end."""
    max_open_streams: int = 128
    """Most calls at once on which many requests are sent (ModelStreamInfer, EmbedStream); one connection gets half.
    Each may have a message arriving for as long as it likes: --max-message-bytes and 1 MiB of memory, at worst."""
    max_inflight_bytes: int = 256 << 20
    """Most bytes of large requests and answers that are on their way at once; one connection gets half."""
    upload_timeout_s: float = 30.0
    """Seconds that a request has to arrive, once its first bytes are there; one while others wait for its place."""

    def __post_init__(self) -> None:
        _between(self, "max_connections", 0, 1 << 24)
        for name in ("keepalive_time_s", "max_connection_idle_s", "min_ping_interval_s", "max_connection_age_s"):
            _between(self, name, 0, 1e6)
        _between(self, "max_streams_per_connection", 1, 1 << 20)
        _between(self, "max_open_streams", 1, 1 << 20)
        _between(self, "max_inflight_bytes", 1 << 20, 1 << 40)
        _between(self, "upload_timeout_s", 0.01, 1e6)
        for name in ("keepalive_timeout_s", "max_connection_age_grace_s"):
            _between(self, name, 1, 1e6)

    def connection_limit(self) -> int:
        """Connections in force."""
        if self.max_connections:
            return self.max_connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return MOST_CONNECTIONS
        return min(MOST_CONNECTIONS, max(soft // 2, soft - RESERVED_FILES))


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerConfig:
    """Who counts as one caller; callers share the machine fairly."""

    caller_key: str = ""
    """Metadata key whose value names the caller, e.g. x-tenant; set by a mesh that clients cannot deceive. Calls
    without it, or all where this is empty, are distinguished by the address of their host."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-z_.-]*", self.caller_key):
            raise ConfigInvalid(
                f"caller_key: {self.caller_key!r} is no metadata key; lower case letters, digits, - _ ."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RolesConfig:
    """Which model answers calls that name none, where several could: protocols made for servers of one model."""

    default_embed_model: str = ""
    """Model for vectors where a call names none; needed where several bi-encoders are loaded."""
    default_sparse_model: str = ""
    """Model for sparse vectors where a call names none; needed where several sparse encoders are loaded."""
    default_rerank_model: str = ""
    """Model that ranks documents where a call names none; needed where several cross-encoders of one label are
    loaded."""
    default_predict_model: str = ""
    """Model that classifies texts and pairs where a call names none; else the only cross-encoder of several labels, or
    the only one at all."""
    default_info_model: str = ""
    """Model that a protocol describes which knows of one model only (TEI's Info), and that tokenises for it; else the
    first that was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RepositoryConfig:
    """Models that come and go while the server runs: docs/repository.md."""

    repository: Path | None = None
    """Directory of models, as MODEL/VERSION/manifest.json or MODEL/manifest.json; of each the newest version that can
    be loaded is served, under the name MODEL."""
    allow_model_control: bool = False
    """Let callers load and unload models of the repository (LoadModel, UnloadModel, and KServe's calls for it)."""

    def __post_init__(self) -> None:
        if self.allow_model_control and self.repository is None:
            raise ConfigInvalid("allow_model_control: there is nothing to load from; give --repository DIR too")


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainConfig:
    """What the server does after SIGTERM or SIGINT."""

    drain_delay_s: float = 0.0
    """Seconds to keep serving after health has become NOT_SERVING, until load balancers have noticed."""
    drain_timeout_s: float = 30.0
    """Seconds that accepted requests have to finish after that; then they are failed and the exit code is 1."""

    def __post_init__(self) -> None:
        _between(self, "drain_delay_s", 0, 1e6)
        _between(self, "drain_timeout_s", 0, 1e6)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalingConfig:
    """Several servers on one port. Every other option but the ports is for each process."""

    processes: int = 1
    """Complete servers on the one port, with the CPUs divided between them; each loads its own copy of the models."""

    def __post_init__(self) -> None:
        _between(self, "processes", 1, 1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """What is logged to stderr, and how."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto is text on a terminal and JSON lines elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug also logs a line for each request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """Everything that ``pairwire serve`` can be given.

    Example::

        ServerConfig(models=(Path("models/demo"),), listen=ListenConfig(host="0.0.0.0"), engine=EngineConfig(workers=4))

    Raises:
        ConfigInvalid: on construction of a section, when a value cannot work.
    """

    models: tuple[Path, ...] = ()
    """Directories of model packages, written by pairwire export."""
    listen: ListenConfig = field(default_factory=ListenConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    limits: RequestLimits = field(default_factory=RequestLimits)
    connections: ConnectionConfig = field(default_factory=ConnectionConfig)
    callers: CallerConfig = field(default_factory=CallerConfig)
    roles: RolesConfig = field(default_factory=RolesConfig)
    repository: RepositoryConfig = field(default_factory=RepositoryConfig)
    shutdown: DrainConfig = field(default_factory=DrainConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    logging: LogConfig = field(default_factory=LogConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def connections_of_a_port(self) -> ConnectionConfig:
        """What each of gRPC and HTTP may have: where both are served, half of the connections."""
        if self.listen.http_port == HTTP_OFF:
            return self.connections
        return replace(self.connections, max_connections=max(1, self.connections.connection_limit() // 2))

    def check_models(self) -> None:
        """Raises ConfigInvalid where there is nothing to serve, or nobody could load it everywhere."""
        if not self.models and self.repository.repository is None:
            raise ConfigInvalid(
                "no model to serve; give at least one package directory, as `pairwire export` writes them"
            )
        if self.repository.allow_model_control and self.scaling.processes > 1:
            raise ConfigInvalid(
                f"allow_model_control: a call reaches one of the {self.scaling.processes} processes, and the others "
                "would serve what they did before; start a single process"
            )


def _between(section: object, name: str, low: float, high: float) -> None:
    value = getattr(section, name)
    if not low <= value <= high:
        raise ConfigInvalid(f"{name}: {value} cannot work; give a number from {low:g} to {high:g}")
