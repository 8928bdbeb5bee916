"""TLS for gRPC, HTTP and metrics, from files that may change at any time.

New files count from the next handshake on; connections that are open keep what they have. Files that do not work change
nothing, and the log says why. They are looked at with OpenSSL first: gRPC says nothing about what it does not take.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from ..config import TlsConfig
from ..errors import ConfigInvalid

logger = logging.getLogger(__name__)

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Loaded:
    """Files that fit each other."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The certificate, the key and the authorities for clients that are in force."""

    def __init__(self, tls: TlsConfig) -> None:
        """Reads them. ``tls`` must have a certificate.

        Raises:
            ConfigInvalid: they cannot be read, or do not fit.
        """
        self._tls = tls
        self.now = _load(tls)
        """What is in force; another object after each change."""
        self.context = self._outer()
        """For servers that speak through `ssl`. It stays the same; what it shows to a client is what is in force."""

    @classmethod
    def of(cls, tls: TlsConfig) -> Certificates | None:
        """None where TLS is off. Raises ConfigInvalid."""
        return None if tls.tls_cert is None else cls(tls)

    @property
    def asks_clients(self) -> bool:
        """Whether clients must show certificates too."""
        return self._tls.tls_client_ca is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """What ``reload`` reads."""
        given = (self._tls.tls_cert, self._tls.tls_key, self._tls.tls_client_ca)
        return tuple(path for path in given if path is not None)

    def reload(self) -> None:
        """Takes what the files say now; where that does not work, what is in force stays, and the log says why."""
        try:
            self.now = _load(self._tls)
        except ConfigInvalid as error:
            logger.error("%s; the certificate read before stays in force", error)
        else:
            logger.info("the certificate in %s is in force", self._tls.tls_cert)

    def _outer(self) -> ssl.SSLContext:
        outer = _load(self._tls).context

        # Called in every handshake, also of clients that name no server.
        def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
            connection.context = self.now.context

        outer.sni_callback = choose
        # No session outlives the certificates, and above all the authorities, under which it was begun.
        outer.options |= ssl.OP_NO_TICKET
        outer.num_tickets = 0
        return outer


def _load(tls: TlsConfig) -> Loaded:
    """The files, read at a moment at which nobody changed them."""
    assert tls.tls_cert is not None
    assert tls.tls_key is not None
    for tries_left in reversed(range(_TRIES)):
        before = _contents(tls)
        try:
            context = _context(tls)
        except ConfigInvalid:
            if not tries_left or _contents(tls) == before:
                raise
            continue
        if _contents(tls) == before:
            return Loaded(*before, context)
    raise ConfigInvalid(f"tls_cert: {tls.tls_cert} changes while it is read")


def _contents(tls: TlsConfig) -> tuple[bytes, bytes, bytes | None]:
    assert tls.tls_cert is not None
    assert tls.tls_key is not None
    authorities = None if tls.tls_client_ca is None else _read("tls_client_ca", tls.tls_client_ca)
    return _read("tls_cert", tls.tls_cert), _read("tls_key", tls.tls_key), authorities


def _context(tls: TlsConfig) -> ssl.SSLContext:
    assert tls.tls_cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.tls_cert, tls.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(
            f"tls_cert: {tls.tls_cert} and {tls.tls_key} are no matching PEM certificate and key ({_why(error)}); "
            "give a chain and its key without a password"
        ) from None
    if tls.tls_client_ca is not None:
        try:
            context.load_verify_locations(tls.tls_client_ca)
        except (OSError, ValueError) as error:
            raise ConfigInvalid(f"tls_client_ca: {tls.tls_client_ca} has no PEM certificate ({_why(error)})") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal, and wait."""
    raise ValueError("the key has a password")


def _why(error: Exception) -> str:
    return (getattr(error, "reason", None) or str(error) or type(error).__name__).lower().replace("_", " ")


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigInvalid(f"{name}: {path} cannot be read ({error.strerror}); give an existing PEM file") from None
