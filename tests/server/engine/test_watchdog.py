"""What hangs is asked to end, and told where it does not; what was only held up is left alone."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from pairwire.server.clock import SystemClock
from pairwire.server.engine.watchdog import RunHung, RunStuck, Watchdog

FLOOR_S = 0.05
LONG_S = 1e6
"""This many seconds are never waited for."""


@pytest.fixture
def stuck() -> queue.Queue[RunStuck]:
    return queue.Queue()


@pytest.fixture
def watchdog(stuck: queue.Queue[RunStuck]) -> Iterator[Watchdog]:
    watchdog = Watchdog(FLOOR_S, clock=SystemClock(), on_stuck=stuck.put)
    yield watchdog
    watchdog.close()


def waits_for(told: threading.Event) -> Callable[[], None]:
    """Work that ends, with an error, only when it is told to."""

    def work() -> None:
        told.wait()
        raise RuntimeError("told to end")

    return work


def test_what_takes_too_long_is_asked_to_end_and_its_caller_told(watchdog: Watchdog) -> None:
    told = threading.Event()
    with pytest.raises(RunHung, match=r"^a run took more than 0\.05 s$"):
        watchdog.run("a run", waits_for(told), told.set)


def test_what_fails_by_itself_fails_as_it_does(watchdog: Watchdog) -> None:
    told = threading.Event()
    told.set()
    with pytest.raises(RuntimeError, match="told to end"):
        watchdog.run("a run", waits_for(told), told.set)


def test_what_does_not_end_when_it_is_asked_to_is_told_once(watchdog: Watchdog, stuck: queue.Queue[RunStuck]) -> None:
    with watchdog.watch("a run", lambda: None) as watched:
        assert str(stuck.get()) == "a run does not end, though it was asked to, for 0.05 s now"
        assert watched.interrupted
        with watchdog.watch("another", lambda: None):
            assert str(stuck.get()).startswith("another")
    assert stuck.empty()


def test_what_cannot_be_asked_to_end_is_told_at_once(watchdog: Watchdog, stuck: queue.Queue[RunStuck]) -> None:
    with watchdog.watch("the event loop"):
        assert str(stuck.get()) == "the event loop gives no sign of life, for 0.05 s now"


def test_what_should_take_long_has_twenty_times_as_long(watchdog: Watchdog, stuck: queue.Queue[RunStuck]) -> None:
    with watchdog.watch("a long run", lambda: None, expected_s=LONG_S) as watched, watchdog.watch("a short one"):
        stuck.get()  # of the short one
        assert not watched.interrupted
        assert watched.limit_s == 20 * LONG_S


def test_a_lower_floor_is_taken_and_a_higher_one_is_not(watchdog: Watchdog) -> None:
    with watchdog.watch("", floor_s=0.01) as lower, watchdog.watch("", floor_s=LONG_S) as higher:
        assert (lower.limit_s, higher.limit_s) == (0.01, FLOOR_S)


def test_a_sign_of_life_begins_the_time_again() -> None:
    watchdog = Watchdog(LONG_S, clock=SystemClock())
    with watchdog.watch("the event loop") as watched:
        watched.left_s = 1.0
        watched.beat()
        assert watched.left_s == LONG_S
    watchdog.close()


def test_everything_can_be_asked_to_end(watchdog: Watchdog) -> None:
    told = threading.Event()
    with watchdog.watch("a run", told.set, expected_s=LONG_S):
        watchdog.interrupt_all()
        assert told.is_set()


def test_a_process_that_was_stopped_blames_nobody() -> None:
    looked = threading.Semaphore(0)
    moments = itertools.chain([0.0, LONG_S], itertools.repeat(LONG_S))

    class Stopped:
        """A clock that makes a leap, as it seems to who was stopped, and stands still from then on."""

        def monotonic(self) -> float:
            looked.release()
            return next(moments)

    watchdog = Watchdog(FLOOR_S, clock=Stopped())
    with watchdog.watch("a run", lambda: None) as watched:
        for _ in range(4):
            looked.acquire()
        assert not watched.interrupted
    watchdog.close()


def test_nothing_is_watched_where_that_is_turned_off() -> None:
    before = threading.active_count()
    watchdog = Watchdog(0, clock=SystemClock())
    with watchdog.watch("a run") as watched:
        assert threading.active_count() == before
    assert not watched.interrupted
