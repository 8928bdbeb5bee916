"""Addresses and options become what gRPC wants."""

import json

import pytest

from pairwire.client import ClientOptions, Keepalive, RetryPolicy, SplitLimits, TlsFiles
from pairwire.client.channel import channel_arguments, service_config, target_of


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("localhost:50051", "localhost:50051"),
        ("dns:///models.internal:443", "dns:///models.internal:443"),
        ("unix:/run/pairwire.sock", "unix:/run/pairwire.sock"),
        (["models.internal:443"], "models.internal:443"),
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (["localhost:1", "127.0.0.1:2"], "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (["[::1]:1", "[::1]:2"], "ipv6:[::1]:1,[::1]:2"),
    ],
)
def test_addresses_become_a_target(addresses: str | list[str], target: str) -> None:
    assert target_of(addresses) == target


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ([], "at least one is needed"),
        ("localhost", "'localhost' has no port; write it like 'localhost:50051'"),
        (["10.0.0.1:1", "server:2"], "'server:2' is a name; gRPC takes several addresses only as IP addresses"),
        (["10.0.0.1:1", "[::1]:2"], "mix IPv4 and IPv6"),
    ],
)
def test_addresses_that_cannot_be_called_in_turn_are_refused(addresses: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        target_of(addresses)


def test_the_service_config_retries_with_throttling_and_takes_turns() -> None:
    config = service_config(RetryPolicy(attempts=3, throttle_tokens=10))
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["retryThrottling"] == {"maxTokens": 10, "tokenRatio": 0.5}
    (methods,) = config["methodConfig"]  # type: ignore[misc]
    assert {name["service"] for name in methods["name"]} == {
        "pairwire.v1.ScoringService",
        "pairwire.v1.EmbeddingService",
        "pairwire.v1.ModelService",
    }
    assert methods["retryPolicy"] == {
        "maxAttempts": 3,
        "initialBackoff": "0.100s",
        "maxBackoff": "2.000s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }


def test_one_attempt_means_no_retry_policy() -> None:
    (methods,) = service_config(RetryPolicy(attempts=1))["methodConfig"]  # type: ignore[misc]
    assert "retryPolicy" not in methods


def test_the_retry_buffer_holds_the_largest_request() -> None:
    arguments = dict(channel_arguments(ClientOptions(split=SplitLimits(max_bytes=50_000_000))))
    assert int(arguments["grpc.per_rpc_retry_buffer_size"]) > 50_000_000
    assert json.loads(str(arguments["grpc.service_config"])) == service_config(RetryPolicy())


def test_keepalive_and_server_name_follow_the_options() -> None:
    arguments = dict(
        channel_arguments(ClientOptions(keepalive=Keepalive(interval_s=90), tls=TlsFiles(server_name="a.b")))
    )
    assert arguments["grpc.keepalive_time_ms"] == 90_000
    assert arguments["grpc.ssl_target_name_override"] == "a.b"
    assert "grpc.keepalive_time_ms" not in dict(channel_arguments(ClientOptions(keepalive=None)))
