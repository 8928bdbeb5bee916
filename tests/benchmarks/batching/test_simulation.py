"""The event loop, the figures and the reference of unfairness, worked out by hand; and every rule on random loads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.batching.figures import alone, call_seconds, figures, in_order_of_arrival, padding
from benchmarks.batching.rules import RULES, FifoFixed, Work
from benchmarks.batching.simulation import ClosedLoop, OpenLoop, Trace, simulate
from benchmarks.batching.tables import modelled_gpu, read, shipped
from benchmarks.batching.workload import calls_of, make_calls, poisson

CPU = read(shipped()["minilm-l6-cpu-int8"])
TABLES = [(recording, recording.truth()) for recording in (CPU, modelled_gpu())]


def _by_rows(rows: int, length: int) -> float:
    return float(rows)


def _fifo(rows: int, calls: list[tuple[int, ...]], arrivals: list[float], workers: int = 1) -> Trace:
    return simulate(FifoFixed(rows), calls_of(calls), _by_rows, workers=workers, load=OpenLoop(np.array(arrivals)))


def test_batches_begin_when_a_worker_is_idle_and_end_when_the_costs_say() -> None:
    trace = _fifo(2, [(5,), (5, 3, 3), (4,)], [0.0, 0.5, 3.5])
    # row 0 from 0 to 1; rows 1 and 2 to 3; row 3 alone to 4; row 4 to 5
    assert trace.row_finished.tolist() == [1.0, 3.0, 3.0, 4.0, 5.0]
    assert trace.finished.tolist() == [1.0, 4.0, 5.0]
    assert trace.row_seconds.tolist() == [1.0] * 5
    assert [(run.rows, run.length, run.tokens) for run in trace.runs] == [(1, 5, 5), (2, 5, 8), (1, 3, 3), (1, 4, 4)]


def test_idle_workers_share_what_waits() -> None:
    trace = _fifo(2, [(5, 5, 5, 5)], [0.0], workers=2)
    assert trace.finished.tolist() == [2.0]


def test_a_closed_loop_sends_the_next_call_when_one_is_answered() -> None:
    calls = calls_of([(5,), (5, 5), (5,)])
    trace = simulate(FifoFixed(1), calls, _by_rows, workers=1, load=ClosedLoop(2))
    assert trace.arrived.tolist() == [0.0, 0.0, 1.0]
    assert trace.finished.tolist() == [1.0, 3.0, 4.0]


def test_padding_counts_the_batches_that_ended_in_the_window() -> None:
    trace = _fifo(2, [(5,), (5, 3, 3), (4,)], [0.0, 0.5, 3.5])
    assert padding(trace, 0.0, 10.0) == pytest.approx(2 / 22)
    assert padding(trace, 1.0, 3.0) == pytest.approx(2 / 10)
    assert padding(trace, 6.0, 7.0) == 0.0


def test_unfairness_is_against_the_same_work_in_order_of_arrival() -> None:
    class Reversed(FifoFixed):
        """The newest row first."""

        def next_work(self, now: float) -> Work | float:
            self._queue.reverse()
            work = super().next_work(now)
            self._queue.reverse()
            return work

    calls = calls_of([(5, 5), (5,), (5,)])
    trace = simulate(Reversed(1), calls, _by_rows, workers=1, load=OpenLoop(np.array([0.0, 0.5, 0.5])))
    # The second row of call 0 runs at once, its first row after the calls 2 and 1; in order it would be done at 2.
    assert trace.finished.tolist() == [4.0, 3.0, 2.0]
    assert call_seconds(trace).tolist() == [2.0, 1.0, 1.0]
    assert in_order_of_arrival(trace).tolist() == [2.0, 3.0, 4.0]
    row = figures(trace)
    assert row["lost_max_ms"] == 2000.0
    assert row["capacity_per_s"] == 1.0
    assert row["lost_max_calls"] == pytest.approx(2.0 / (4 / 3))


def test_a_rule_that_loses_rows_is_found_out() -> None:
    class Forgetful(FifoFixed):
        def next_work(self, now: float) -> Work | float:
            work = super().next_work(now)
            return Work(work.rows[1:], work.length) if isinstance(work, Work) and len(work.rows) > 1 else work

    with pytest.raises(RuntimeError, match="1 rows waiting"):
        simulate(Forgetful(2), calls_of([(5, 5)]), _by_rows, workers=1, load=OpenLoop(np.zeros(1)))


def test_a_rule_that_runs_a_row_twice_is_found_out() -> None:
    class Forgetful(FifoFixed):
        def next_work(self, now: float) -> Work | float:
            return Work([0], 5)

    with pytest.raises(RuntimeError, match="row 0 twice"):
        simulate(Forgetful(2), calls_of([(5, 5)]), _by_rows, workers=1, load=OpenLoop(np.zeros(1)))


@pytest.mark.parametrize("name", list(RULES))
@given(
    calls=st.lists(st.lists(st.integers(1, 512), min_size=1, max_size=40), min_size=2, max_size=15),
    workers=st.integers(1, 3),
    in_flight=st.integers(1, 5),
    gap_s=st.sampled_from([0.0, 0.001, 0.2]),
)
@settings(max_examples=10, deadline=None)
def test_every_rule_runs_every_row_once_within_its_length(
    name: str, calls: list[list[int]], workers: int, in_flight: int, gap_s: float
) -> None:
    made = calls_of(calls)
    for recording, truth in TABLES:
        for load in (OpenLoop(np.arange(len(made)) * gap_s), ClosedLoop(in_flight)):
            trace = simulate(RULES[name](recording, workers), made, truth, workers=workers, load=load)
            assert np.all(trace.finished > trace.arrived)
            assert sum(run.rows for run in trace.runs) == len(trace.row_finished)
            assert sum(run.tokens for run in trace.runs) == sum(map(sum, calls))
            assert all(run.tokens <= run.rows * run.length for run in trace.runs)


def test_the_latency_of_a_call_alone_does_not_depend_on_the_others() -> None:
    calls = calls_of([(30,), (60, 61, 500), (30,)])
    rule, truth = RULES["pairwire"](CPU, 2), TABLES[0][1]
    first, second, third = alone(rule, calls, truth, workers=2).tolist()
    assert first == third == pytest.approx(truth(1, 30))
    assert truth(1, 504) > second > truth(1, 496)  # the two short rows run beside it


def test_a_workload_is_the_same_for_the_same_seed_and_stays_within_its_series() -> None:
    series = [np.arange(10, 20, dtype=np.int32), np.full(3, 100, dtype=np.int32)]
    calls = make_calls(series, 200, seed=3)
    assert calls == make_calls(series, 200, seed=3)
    assert calls != make_calls(series, 200, seed=4)
    assert {len(set(call.lengths) & {100}) for call in calls if len(call.lengths) > 1} == {0, 1}
    assert all(set(call.lengths) <= set(range(10, 20)) or set(call.lengths) == {100} for call in calls)
    assert {1, 100} <= {len(call.lengths) for call in make_calls(series, 2000, seed=0)}
    assert np.array_equal(poisson(50, 10.0, 3).arrivals, poisson(50, 10.0, 3).arrivals)
    assert poisson(5000, 10.0, 3).arrivals[-1] == pytest.approx(500, rel=0.1)
