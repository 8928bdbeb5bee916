import pytest

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
