import pytest

from pairwire.server.clock import SimClock
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.tuning.measuring import (
    CLEAR_TURNS,
    LEAST_TURNS,
    MOST_TURNS,
    SHAPES,
    Contender,
    Shape,
    measure,
    shapes_up_to,
    work_of,
)
from tests.server.engine import toys


def _contender(clock: SimClock, name: str, token_s: float, shapes: list[Shape]) -> Contender:
    def run(batch: TokenBatch) -> None:
        clock.advance(token_s * batch.rows * batch.length)

    return Contender(name, run, work_of(shapes, toys.toy_model().encoder.blank))


def test_a_token_costs_what_the_clock_says() -> None:
    clock = SimClock()
    shapes = [Shape(1, 8), Shape(4, 16)]
    slow, fast = _contender(clock, "slow", 2e-6, shapes), _contender(clock, "fast", 1e-6, shapes)
    timings = measure([slow, fast], clock=clock)
    assert timings.us_per_token[0] == pytest.approx([2, 2])
    assert timings.us_per_token[1] == pytest.approx([1, 1])
    assert timings.relative == pytest.approx([1, 0.5])


def test_those_who_cut_the_same_rows_differently_are_compared_by_the_token() -> None:
    clock = SimClock()

    def run(batch: TokenBatch) -> None:
        clock.advance(1e-3)

    blank = toys.toy_model().encoder.blank
    small = Contender("small", run, [[blank(1, 16)] * 4])
    large = Contender("large", run, [[blank(4, 16)]])
    assert measure([small, large], clock=clock).relative == pytest.approx([1, 0.25])


def test_a_slow_machine_now_and_then_changes_nothing() -> None:
    clock = SimClock()
    runs = 0

    def run(batch: TokenBatch) -> None:
        nonlocal runs
        runs += 1
        clock.advance(1e-3 if runs % 7 else 5e-2)

    work = [[toys.toy_model().encoder.blank(1, 16)]]
    timings = measure([Contender(name, run, work) for name in "ab"], clock=clock)
    assert timings.relative == pytest.approx([1, 1])


@pytest.mark.parametrize(("run_s", "turns"), [(1e-6, MOST_TURNS), (10.0, LEAST_TURNS)])
def test_turns_keep_to_the_budget_within_bounds(run_s: float, turns: int) -> None:
    clock = SimClock()
    runs = 0

    def run(batch: TokenBatch) -> None:
        nonlocal runs
        runs += 1
        clock.advance(run_s)

    measure([Contender("a", run, [[toys.toy_model().encoder.blank(1, 16)]])], clock=clock)
    assert runs == 1 + 2 * turns


def _counted(clock: SimClock, name: str, seconds: list[float], runs: dict[str, int]) -> Contender:
    """Takes the given seconds, one run after the other, the last of them for ever."""

    def run(batch: TokenBatch) -> None:
        at = runs.get(name, 0)
        runs[name] = at + 1
        clock.advance(seconds[min(at, len(seconds) - 1)])

    return Contender(name, run, [[toys.toy_model().encoder.blank(1, 16)]])


def test_it_ends_when_nobody_can_win_any_more() -> None:
    clock, runs = SimClock(), dict[str, int]()
    names = {"best": 1.0, "slow": 1.5, "equal": 1.0, "best again": 1.0}
    timings = measure([_counted(clock, name, [one], runs) for name, one in names.items()], clock=clock, budget_s=1e6)
    assert set(runs.values()) == {1 + 2 * CLEAR_TURNS}
    assert timings.relative == pytest.approx([1, 1.5, 1, 1])


def test_who_may_win_is_measured_on_and_the_others_are_not() -> None:
    clock, runs = SimClock(), dict[str, int]()
    names = {"best": 1.0, "slow": 1.5, "fast": 0.9, "best again": 1.0}
    timings = measure([_counted(clock, name, [one], runs) for name, one in names.items()], clock=clock, budget_s=1e6)
    assert runs["slow"] == 1 + 2 * CLEAR_TURNS
    assert runs["fast"] == runs["best"] == runs["best again"] == 1 + 2 * MOST_TURNS
    assert timings.relative == pytest.approx([1, 1.5, 0.9, 1])


def test_one_good_turn_keeps_a_contender_in() -> None:
    """The answer is clear only where even the best turns are no faster."""
    clock, runs = SimClock(), dict[str, int]()
    lucky = _counted(clock, "lucky", [1.0, 1.0, 0.5, 1.0], runs)
    others = [_counted(clock, name, [1.0], runs) for name in ("best", "best again")]
    timings = measure([others[0], lucky, others[1]], clock=clock, budget_s=1e6)
    assert runs["lucky"] == 1 + 2 * MOST_TURNS
    assert timings.relative == pytest.approx([1, 1, 1])


def test_shapes_fit_the_model_and_are_measured_once() -> None:
    assert shapes_up_to(512) == SHAPES
    assert shapes_up_to(128) == (Shape(1, 16), Shape(8, 32), Shape(4, 128), Shape(1, 128))


def test_rows_that_run_unpadded_run_alone() -> None:
    work = work_of([Shape(4, 32), Shape(4, 64)], toys.toy_model().encoder.blank, unpadded_from=64)
    assert [[(batch.rows, batch.length) for batch in batches] for batches in work] == [[(4, 32)], [(1, 64)] * 4]
