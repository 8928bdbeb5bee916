import threading

import pytest

from pairwire.server.clock import ThreadClock
from pairwire.server.engine import SimClock, SystemClock


def test_system_clock_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


def test_simulated_clock_moves_only_when_told() -> None:
    clock = SimClock(start_s=5)
    assert clock.monotonic() == clock.monotonic() == 5
    clock.advance(2.5)
    assert clock.monotonic() == 7.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_thread_clock_stands_while_the_thread_waits() -> None:
    clock, wall = ThreadClock(), SystemClock()
    begun, begun_wall = clock.monotonic(), wall.monotonic()
    threading.Event().wait(0.2)
    assert clock.monotonic() - begun < wall.monotonic() - begun_wall
    waited = clock.monotonic()
    sum(range(100_000))
    assert clock.monotonic() > waited
