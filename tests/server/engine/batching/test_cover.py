"""The cheapest cover, against all covers of small pools."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.cover import EXACT_STEPS, cheapest_cover, cover_lengths, cover_rows


def _seconds(batches: list[tuple[int, int]], seconds: list[list[float]]) -> float:
    return sum(seconds[position][rows] for position, rows in batches)


def _all_covers(rows: list[int], most: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Every partition of the rows (positions of their lengths) into batches that may run, neighbours or not."""
    if not rows:
        yield []
        return
    first, *others = rows
    for mask in range(2 ** len(others)):
        together = [first, *(row for at, row in enumerate(others) if mask >> at & 1)]
        left = [row for at, row in enumerate(others) if not mask >> at & 1]
        if len(together) <= most[max(together)]:
            for cover in _all_covers(left, most):
                yield [(max(together), len(together)), *cover]


COSTS = st.tuples(st.floats(0, 100), st.floats(0.01, 10), st.floats(0, 1))
"""Of a run, of a token, of a token squared."""


@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=3), costs=COSTS, budget=st.integers(1, 60))
def test_no_cover_of_any_kind_is_cheaper(counts: list[int], costs: tuple[float, float, float], budget: int) -> None:
    run, token, squared = costs
    lengths = [8 * (at + 1) for at in range(len(counts))]
    seconds = [[run + rows * (token * n + squared * n * n) for rows in range(10)] for n in lengths]
    most = [max(1, budget // length) for length in lengths]
    batches = cheapest_cover(counts, seconds, most)
    rows = [at for at, count in enumerate(counts) for _ in range(count)]
    assert sum(taken for _, taken in batches) == len(rows)
    assert all(taken <= most[position] for position, taken in batches)
    if rows:
        best = min(_seconds(cover, seconds) for cover in _all_covers(rows, most))
        assert _seconds(batches, seconds) == pytest.approx(best)


def test_each_batch_ends_at_the_length_of_its_longest_row() -> None:
    seconds = [[0.0, 1.0, 1.1, 1.2], [0.0, 1.5, 1.6, 1.7]]
    assert cheapest_cover([2, 1], seconds, [3, 3]) == [(1, 3)]
    assert cheapest_cover([2, 1], seconds, [3, 1]) == [(0, 2), (1, 1)]


def test_nothing_waiting_is_covered_by_nothing() -> None:
    assert cheapest_cover([0, 0], [[0.0, 1.0], [0.0, 1.0]], [1, 1]) == []


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    costs=st.tuples(st.floats(0.1, 20), st.floats(0.05, 2)),
    budget=st.integers(8, 400),
)
def test_whole_lengths_are_covered_almost_as_cheaply(
    counts: list[int], costs: tuple[float, float], budget: int
) -> None:
    """Every row once, nothing too large, in order; never cheaper than the optimum, and dearer within a bound."""
    run, token = costs
    lengths = [8 * (at + 1) for at in range(len(counts))]
    seconds = [[0.0, *(run + rows * token * n for rows in range(1, 60))] for n in lengths]
    most = [max(1, budget // length) for length in lengths]
    batches = cover_lengths(counts, seconds, most)
    assert sum(rows for _, rows in batches) == sum(counts)
    assert all(0 < rows <= most[position] for position, rows in batches)
    assert [position for position, _ in batches] == sorted(position for position, _ in batches)
    optimum = _seconds(cover_rows(counts, seconds, most), seconds)
    # One batch for each length is a group cover too, and none is worse.
    apart = sum(
        seconds[at][0] + parts * (run + 0.0) + count * token * lengths[at]
        for at, count in enumerate(counts)
        if (parts := -(-count // most[at]))
    )
    assert optimum * (1 - 1e-9) <= _seconds(batches, seconds) <= apart * (1 + 1e-9)


def test_a_large_pool_is_covered_by_lengths_and_a_small_one_by_rows() -> None:
    seconds = [[0.0, *(1.0 + rows * 8 * (at + 1) for rows in range(1, 65))] for at in range(4)]
    most = [64, 32, 21, 16]
    small, large = [2, 3, 1, 2], [100, 90, 80, 70]
    assert sum(count * rows for count, rows in zip(large, most, strict=True)) > EXACT_STEPS
    assert cheapest_cover(small, seconds, most) == cover_rows(small, seconds, most)
    assert cheapest_cover(large, seconds, most) == cover_lengths(large, seconds, most)
