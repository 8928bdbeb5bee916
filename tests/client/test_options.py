"""Options refuse what cannot work, when they are made."""

import re
from pathlib import Path

import pytest

from pairwire.client import ClientOptions, Keepalive, RetryPolicy, SplitLimits, TlsFiles


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TlsFiles(client_key=Path("key.pem")), "client_certificate and client_key: give both"),
        (lambda: RetryPolicy(attempts=0), "attempts: 0 is not between 1 (no retries) and 5"),
        (lambda: RetryPolicy(attempts=6), "attempts: 6"),
        (lambda: RetryPolicy(initial_backoff_s=0.001), "initial_backoff_s and max_backoff_s: at least 0.01"),
        (lambda: RetryPolicy(throttle_tokens=2000), "throttle_tokens must be between 1 and 1000"),
        (lambda: SplitLimits(max_items=0), "max_items: 0 is less than 1"),
        (lambda: SplitLimits(in_flight=-1), "in_flight: -1 is less than 1"),
        (lambda: Keepalive(interval_s=0), "use keepalive=None to send no pings"),
        (lambda: ClientOptions(timeout_s=0), "timeout_s: 0 is not a positive number"),
        (lambda: ClientOptions(metadata=(("Authorization", "x"),)), "lower case, 'Authorization' is not"),
    ],
)
def test_what_cannot_work_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(ClientOptions(metadata=(("authorization", "secret"),)))


def test_options_are_values() -> None:
    assert ClientOptions() == ClientOptions()
    assert ClientOptions(timeout_s=None).timeout_s is None
