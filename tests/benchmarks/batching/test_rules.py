"""Each rival's rule on cases small enough to work out by hand; a batch takes as many seconds as it has rows."""

import numpy as np
import pytest

from benchmarks.batching.rules import FifoFixed, Rule, SortedBudget, TextEmbeddingsInference, Triton, Work
from benchmarks.batching.simulation import OpenLoop, simulate
from benchmarks.batching.workload import calls_of


def _batches(rule: Rule, *calls: tuple[int, ...]) -> list[tuple[list[int], int]]:
    """(rows, padded length) of each batch, if all calls come at once and one worker asks until nothing is left."""
    for call in calls_of(calls):
        rule.admit(call, 0.0)
    found = []
    while isinstance(work := rule.next_work(0.0), Work):
        found.append((list(work.rows), work.length))
        rule.complete(work, 0.0)
    return found


def test_fifo_takes_the_oldest_rows_and_pads_them_to_the_longest() -> None:
    assert _batches(FifoFixed(3), (5, 9), (2, 7), (4,)) == [([0, 1, 2], 9), ([3, 4], 7)]


def test_sorting_cuts_by_padded_tokens_longest_first() -> None:
    # 9 + 9 padded for (9, 7) is 18, a third would make 27; then (5, 4) is 10 and (5, 4, 2) is 15.
    assert _batches(SortedBudget(20), (5, 9), (2, 7), (4,)) == [([1, 3], 9), ([0, 4, 2], 5)]


def test_what_comes_after_a_sort_waits_for_the_next_one() -> None:
    rule = SortedBudget(10)
    first, second = calls_of([(4, 10), (9,)])
    rule.admit(first, 0.0)
    assert rule.next_work(0.0) == Work([1], 10)
    rule.admit(second, 0.0)
    assert rule.next_work(0.0) == Work([0], 4)
    assert rule.next_work(0.0) == Work([2], 9)


def test_a_row_above_the_budget_runs_alone() -> None:
    assert _batches(SortedBudget(8), (4, 10, 4)) == [([1], 10), ([0, 2], 4)]
    assert _batches(TextEmbeddingsInference(8), (4, 10, 4)) == [([0], 4), ([1], 10), ([2], 4)]


def test_tei_stops_at_the_first_entry_that_does_not_fit_although_a_later_one_would() -> None:
    # (5, 9) padded is 18; with 6 it would be 27 of at most 20; 2 is not looked at before 6 has gone.
    assert _batches(TextEmbeddingsInference(20), (5, 9), (6, 2)) == [([0, 1], 9), ([2, 3], 6)]


def test_tei_counts_padding_and_stops_at_the_most_entries() -> None:
    assert _batches(TextEmbeddingsInference(20), (1, 1, 10)) == [([0, 1], 1), ([2], 10)]
    assert _batches(TextEmbeddingsInference(20, 2), (1, 1, 1, 1, 1)) == [([0, 1], 1), ([2, 3], 1), ([4], 1)]


def test_tei_makes_one_batch_ahead_of_the_one_that_runs() -> None:
    rule = TextEmbeddingsInference(100)
    first, second, third, fourth = calls_of([(5,), (6,), (7,), (8,)])
    rule.admit(first, 0.0)
    assert rule.next_work(0.0) == Work([0], 5)
    rule.admit(second, 0.1)  # is made the next batch at once, alone
    rule.admit(third, 0.2)
    rule.admit(fourth, 0.3)
    assert rule.next_work(1.0) == Work([1], 6)
    assert rule.next_work(2.0) == Work([2, 3], 8)


def test_triton_stops_at_the_first_shape_that_differs() -> None:
    assert _batches(Triton(), (5,), (5,), (6,), (5,)) == [([0, 1], 5), ([2], 6), ([3], 5)]


def test_triton_s_client_pads_a_request_to_one_shape_and_cuts_it_to_the_largest_batch() -> None:
    assert _batches(Triton(4), (5, 3), (4, 5)) == [([0, 1, 2, 3], 5)]
    assert _batches(Triton(2), (5, 3, 7)) == [([0, 1], 5), ([2], 7)]
    assert _batches(Triton(3), (5, 3), (4, 5)) == [([0, 1], 5), ([2, 3], 5)]  # a request is not torn


def test_triton_without_delay_takes_a_preferred_size_or_else_what_there_is() -> None:
    same = [(5,)] * 7
    assert [len(rows) for rows, _ in _batches(Triton(8, (2, 4)), *same)] == [4, 2, 1]


def test_triton_waits_for_its_delay_unless_the_batch_is_full_or_the_next_shape_differs() -> None:
    rule = Triton(2, max_queue_delay_s=0.5)
    first, second, third, fourth = calls_of([(5,), (5,), (5,), (6,)])
    rule.admit(first, 1.0)
    assert rule.next_work(1.0) == 1.5
    rule.admit(second, 1.1)
    assert rule.next_work(1.1) == Work([0, 1], 5)
    rule.admit(third, 1.2)
    assert rule.next_work(1.7) == Work([2], 5)
    rule.admit(third, 2.0)
    rule.admit(fourth, 2.1)
    assert rule.next_work(2.1) == Work([2], 5)


def test_a_delay_is_slept_through_in_the_simulation() -> None:
    calls = calls_of([(5,), (5,)])
    rule = Triton(max_queue_delay_s=0.5)
    trace = simulate(rule, calls, lambda rows, _: float(rows), workers=1, load=OpenLoop(np.array([0.0, 0.2])))
    assert trace.finished.tolist() == pytest.approx([2.5, 2.5])
