"""The server's own options."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairwire.server.config import (
    ConnectionConfig,
    DrainConfig,
    ListenConfig,
    RequestLimits,
    ScalingConfig,
    ServerConfig,
    TlsConfig,
)
from pairwire.server.engine import EngineConfig
from pairwire.server.errors import ConfigInvalid
from pairwire.server.options import options_of


def test_every_option_has_a_name_of_its_own_and_a_help_text() -> None:
    names = [option.name for option in options_of(ServerConfig)]
    assert len(names) > 25
    assert {"models", "port", "max_items", "drain_timeout_s", "log_format", "workers", "queue_tokens"} <= set(names)


def test_the_defaults_are_those_of_the_manual() -> None:
    config = ServerConfig()
    assert (config.listen.host, config.listen.port, config.listen.metrics_port) == ("127.0.0.1", 50051, 9090)
    assert config.limits == RequestLimits(
        max_items=2048, max_text_bytes=2**20, max_message_bytes=2**25, max_answer_bytes=2**26
    )
    assert config.shutdown == DrainConfig(drain_delay_s=0, drain_timeout_s=30)
    assert config.scaling == ScalingConfig(processes=1)
    assert config.engine == EngineConfig()


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ListenConfig(port=65536), "port: 65536 cannot work; give a number from 0 to 65535"),
        (lambda: ListenConfig(metrics_port=-2), "metrics_port: -2 cannot work; give a number from -1"),
        (lambda: RequestLimits(max_items=0), "max_items: 0 cannot work; give a number from 1"),
        (lambda: RequestLimits(max_text_bytes=0), "max_text_bytes: 0"),
        (lambda: RequestLimits(max_message_bytes=10), "max_message_bytes: 10"),
        (lambda: ConnectionConfig(keepalive_timeout_s=0), "keepalive_timeout_s: 0"),
        (lambda: ConnectionConfig(max_connection_age_s=-1), "max_connection_age_s: -1"),
        (lambda: DrainConfig(drain_delay_s=-1), "drain_delay_s: -1"),
        (lambda: DrainConfig(drain_timeout_s=float("inf")), "drain_timeout_s: inf"),
        (lambda: ScalingConfig(processes=0), "processes: 0 cannot work; give a number from 1 to 1024"),
        (lambda: TlsConfig(tls_cert=Path("c")), "tls_key: needed too"),
        (lambda: TlsConfig(tls_key=Path("k")), "tls_cert: needed too"),
        (lambda: TlsConfig(tls_client_ca=Path("a")), "tls_client_ca: mutual TLS needs tls_cert and tls_key too"),
    ],
)
def test_values_that_cannot_work_are_refused_on_construction(build: object, sentence: str) -> None:
    assert callable(build)
    with pytest.raises(ConfigInvalid, match=sentence):
        build()
