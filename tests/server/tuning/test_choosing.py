from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from pairwire.server.clock import SimClock
from pairwire.server.runtime.base import RuntimeInfo, TokenBatch
from pairwire.server.tuning.choosing import Budget, Choice, Choices, NotApplicable, Opened, choose
from pairwire.server.tuning.measuring import GAIN, Contender, Measure, Timings
from tests.server.engine import toys
from tests.server.tuning.timings import Stopwatch, by_name


class Bench:
    """Candidates are strings; each of "abc..." is a factor that may be put behind them."""

    def __init__(
        self,
        factors: Sequence[Sequence[str]],
        *,
        refused: Mapping[str, str] | None = None,
        impossible: Sequence[str] = (),
    ) -> None:
        self.open = 0
        self._factors = factors
        self._refused = refused or {}
        self._impossible = impossible

    def choose(self, measure: Measure, budget: Budget | None = None) -> Choice[str]:
        factors: list[Callable[[str], list[str]]] = [
            lambda best, names=names: [best + name for name in names]  # type: ignore[misc]
            for names in self._factors
        ]
        return choose(Choices("-", factors, self._open, str), measure, budget)

    def _open(self, candidate: str) -> Opened:
        if candidate in self._impossible:
            raise NotApplicable("cannot be")
        self.open += 1

        def close() -> None:
            self.open -= 1

        run: Callable[[TokenBatch], None] = lambda batch: None  # noqa: E731
        work = [[toys.toy_model().encoder.blank(1, 16)]]
        return Opened(Contender(candidate, run, work), 0.5, lambda: self._refused.get(candidate, ""), close)


def reasons(choice: Choice[str]) -> dict[str, str]:
    return {tried.name: tried.reason for tried in choice.table}


def test_each_factor_goes_on_from_the_best_so_far() -> None:
    bench, stopwatch = Bench(["a", "b", "c"]), by_name({"-a": 8, "-ab": 9, "-ac": 6})
    choice = bench.choose(stopwatch)
    assert (choice.best, choice.changed, choice.chosen.name) == ("-ac", True, "-ac")
    assert [tried.name for tried in choice.table] == ["-", "-a", "-ab", "-ac"]
    assert [tried.relative for tried in choice.table] == pytest.approx([1, 0.8, 0.9, 0.6])
    assert reasons(choice)["-ac"] == "25.0% faster than -a"
    assert [tried.chosen for tried in choice.table] == [False, False, False, True]
    assert bench.open == 0


def test_a_gain_within_the_noise_changes_nothing() -> None:
    choice = Bench(["ab"]).choose(by_name({"-a": 10 * (1 - GAIN / 2), "-b": 11}))
    assert (choice.best, choice.changed) == ("-", False)
    assert reasons(choice) == {
        "-": "nothing was faster",
        "-a": "no difference beyond 2%",
        "-b": "10.0% slower",
    }


def test_who_beats_only_one_instance_of_the_best_does_not_win() -> None:
    """Two sessions of one graph differ: the candidate must be faster than both."""
    times = {"-": [10.0, 9.0]}
    stopwatch = Stopwatch(lambda name, count: times[name][count % 2] if name in times else 9.1)
    choice = Bench(["a"]).choose(stopwatch)
    assert choice.best == "-"
    assert stopwatch.rounds == [["-", "-a", "-"]]


def test_what_a_second_measurement_does_not_confirm_does_not_win() -> None:
    stopwatch = Stopwatch(lambda name, count: 8 if (name, count) == ("-a", 0) else 10)
    choice = Bench(["a"]).choose(stopwatch)
    assert choice.best == "-"
    assert reasons(choice)["-a"] == "not faster in a second measurement (1.000)"
    assert stopwatch.rounds == [["-", "-a", "-"]] * 2


def test_the_fastest_that_is_refused_leaves_its_place_to_the_next() -> None:
    bench = Bench(["abc"], refused={"-a": "answers differ"})
    choice = bench.choose(by_name({"-a": 5, "-b": 6, "-c": 7}))
    assert choice.best == "-b"
    assert reasons(choice) == {
        "-": "where it began",
        "-a": "answers differ",
        "-b": "40.0% faster than -",
        "-c": "slower than -b",
    }


def test_what_cannot_be_tried_is_in_the_table_without_numbers() -> None:
    choice = Bench(["a", "b"], impossible=["-a"]).choose(by_name({"-b": 5}))
    assert choice.best == "-b"
    (row,) = [tried for tried in choice.table if tried.name == "-a"]
    assert (row.us_per_token, row.reason) == ((), "cannot be")


def test_a_budget_that_is_spent_leaves_the_rest_untried_and_the_best_so_far_wins() -> None:
    clock = SimClock()
    told: list[float] = []
    times = by_name({"-a": 5})

    def measure(contenders: Sequence[Contender]) -> Timings:
        clock.advance(4)
        return times(contenders)

    bench = Bench(["a", "b", "c"])
    # "a" takes two measurements, as it wins: 8 s. Half of that would end "b" at 12 s, "c" at 16 s or more.
    choice = bench.choose(measure, Budget(12.5, told.append, clock))
    assert choice.best == "-a"
    assert reasons(choice)["-ab"] == "100.0% slower"
    assert reasons(choice)["-ac"] == "not tried: the budget of 12.5 s was spent"
    assert told == pytest.approx([8 / 12.5, 12 / 12.5])
    assert times.rounds == [["-", "-a", "-"]] * 2 + [["-a", "-ab", "-a"]]


def test_the_first_factor_is_tried_whatever_the_budget() -> None:
    choice = Bench(["a", "b"]).choose(by_name({"-a": 5}), Budget(0.001, clock=SimClock()))
    assert choice.best == "-a"


def test_everything_is_closed_when_a_run_fails() -> None:
    def fail(contenders: Sequence[Contender]) -> object:
        raise RuntimeError("no")

    bench = Bench(["a"])
    with pytest.raises(RuntimeError, match="no"):
        bench.choose(fail)  # type: ignore[arg-type]
    assert bench.open == 0


def test_the_table_goes_into_the_manifest() -> None:
    choice = Bench(["a"]).choose(by_name({"-a": 8}))
    info = RuntimeInfo(provider="CPUExecutionProvider", device="a processor", version="1.2.3", intra_op_threads=1)
    tuning = choice.to_proto("recipe", info, ["1x16"])
    assert (tuning.subject, tuning.processor, tuning.runtime, list(tuning.columns)) == (
        "recipe",
        "a processor",
        "1.2.3",
        ["1x16"],
    )
    assert tuning.created.endswith("Z")
    assert [(row.name, list(row.us_per_token), row.chosen) for row in tuning.candidates] == [
        ("-", [10], False),
        ("-a", [8], True),
    ]
    assert tuning.candidates[1].max_abs_diff == 0.5
