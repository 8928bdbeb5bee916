"""Certificates as gRPC wants them: it asks for them before every handshake."""

from __future__ import annotations

import grpc

from ..security.certificates import Certificates, Loaded


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """For a server that shows what is in force."""
    told = certificates.now

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        if told is certificates.now:
            return None
        told = certificates.now
        return _configuration(told)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(told),
        fetch,  # type: ignore[arg-type]  # None is for "as before"; the stub forgets it
        require_client_authentication=certificates.asks_clients,
    )


def _configuration(loaded: Loaded) -> grpc.ServerCertificateConfiguration:
    pair = (loaded.key, loaded.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=loaded.authorities)
