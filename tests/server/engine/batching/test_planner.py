"""What waits, what it costs and a worker's share of it -> the next batch, as a table of cases."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.buckets import Bucket, Ladder
from pairwire.server.engine.batching.cost import CostTable
from pairwire.server.engine.batching.planner import OptimalCover, Plan, PoolView
from pairwire.server.engine.batching.pool import Pool, queue_rows
from tests.server.engine import toys

LADDER = Ladder(tuple(range(8, 129, 8)))
PER_TOKEN = (1e-9, 1.0)  # a CPU: padding is everything
PER_RUN = (1000.0, 1.0)  # a GPU: runs are everything


def _plan(
    waiting: Mapping[int, int],
    anchor: int,
    *,
    costs: tuple[float, float] = PER_TOKEN,
    share_s: float = math.inf,
    budget: int = 512,
) -> tuple[Bucket, dict[int, int]]:
    """``waiting``: rows by padded length. The plan's bucket, and the rows it takes by padded length."""
    counts = np.array([waiting.get(length, 0) for length in LADDER.lengths], dtype=np.int64)
    plan = OptimalCover()(_view(counts, LADDER.lengths.index(anchor)), _table(costs, budget), share_s=share_s, now=0.0)
    return plan.bucket, {LADDER.lengths[level]: rows for level, rows in plan.takes}


def _table(costs: tuple[float, float], budget: int) -> CostTable:
    return toys.linear_costs(LADDER, fixed_s=costs[0], token_s=costs[1], batch_tokens=budget)


def _view(
    counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], anchor: int, unpadded: int = len(LADDER)
) -> PoolView:
    times = np.zeros(len(counts))
    return PoolView(np.array(LADDER.lengths, dtype=np.int32), counts, times, times, anchor, unpadded)


@pytest.mark.parametrize(
    ("waiting", "anchor", "bucket", "taken"),
    [
        pytest.param({16: 1}, 16, Bucket(1, 16), {16: 1}, id="one row runs alone"),
        pytest.param({16: 10}, 16, Bucket(10, 16), {16: 10}, id="all rows of a length run together"),
        pytest.param({16: 100}, 16, Bucket(32, 16), {16: 32}, id="up to the token budget"),
        pytest.param({16: 100, 64: 1}, 64, Bucket(1, 64), {64: 1}, id="no padding where padding is everything"),
    ],
)
def test_where_padding_is_everything(
    waiting: Mapping[int, int], anchor: int, bucket: Bucket, taken: Mapping[int, int]
) -> None:
    assert _plan(waiting, anchor) == (bucket, taken)


@pytest.mark.parametrize(
    ("waiting", "anchor", "bucket", "taken"),
    [
        pytest.param({16: 2, 64: 1}, 64, Bucket(3, 64), {64: 1, 16: 2}, id="shorter rows ride along"),
        pytest.param({16: 1, 64: 2}, 16, Bucket(3, 64), {16: 1, 64: 2}, id="longer rows take the anchor along"),
        pytest.param({16: 2, 64: 20}, 64, Bucket(8, 64), {64: 8}, id="the anchor's own length comes first"),
        pytest.param(
            {8: 5, 56: 5, 64: 1}, 64, Bucket(6, 64), {64: 1, 56: 5}, id="of as many runs those with least padding"
        ),
        pytest.param({16: 20, 128: 9}, 16, Bucket(20, 16), {16: 20}, id="no longer row where the budget would burst"),
    ],
)
def test_where_runs_are_everything(
    waiting: Mapping[int, int], anchor: int, bucket: Bucket, taken: Mapping[int, int]
) -> None:
    assert _plan(waiting, anchor, costs=PER_RUN) == (bucket, taken)


def test_rows_that_must_not_be_padded_run_alone() -> None:
    counts = np.array([{64: 2, 120: 1, 128: 3}.get(length, 0) for length in LADDER.lengths], dtype=np.int64)
    costs, unpadded = _table(PER_RUN, 512), LADDER.lengths.index(120)

    def taken(anchor: int) -> dict[int, int]:
        view = _view(counts, LADDER.lengths.index(anchor), unpadded)
        plan = OptimalCover()(view, costs, share_s=math.inf, now=0.0)
        return {LADDER.lengths[level]: rows for level, rows in plan.takes}

    assert taken(120) == {120: 1}
    assert taken(128) == {128: 1}
    assert taken(64) == {64: 2}


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    assert _plan({128: 3}, 128, budget=100) == (Bucket(1, 128), {128: 1})


@pytest.mark.parametrize(("rows_of_share", "rows"), [(8, 8), (4, 4), (3.6, 4), (3.4, 3), (1, 1), (0.01, 1)])
def test_a_batch_lasts_about_as_long_as_a_workers_share(rows_of_share: float, rows: int) -> None:
    assert _plan({64: 8}, 64, share_s=64 * rows_of_share) == (Bucket(rows, 64), {64: rows})


def test_a_full_pool_is_not_cut_smaller_for_several_workers() -> None:
    assert _plan({64: 100}, 64, share_s=64 * 50) == (Bucket(8, 64), {64: 8})


def test_work_is_not_shared_where_a_run_costs_more_than_it_saves() -> None:
    assert _plan({16: 4}, 16, costs=PER_RUN, share_s=1.0) == (Bucket(4, 16), {16: 4})


@given(
    counts=st.lists(st.integers(0, 40), min_size=16, max_size=16),
    anchor=st.integers(0, 15),
    share_s=st.just(math.inf) | st.floats(0, 1e6),
    budget=st.integers(1, 1024),
    fixed_s=st.floats(1e-9, 1e4),
)
def test_every_plan_is_a_batch_that_can_run(
    counts: list[int], anchor: int, share_s: float, budget: int, fixed_s: float
) -> None:
    counts[anchor] += 1
    waiting = np.array(counts, dtype=np.int64)
    costs = toys.linear_costs(LADDER, fixed_s=fixed_s, token_s=1.0, batch_tokens=budget)
    plan = OptimalCover()(_view(waiting, anchor), costs, share_s=share_s, now=0.0)
    again = OptimalCover()(_view(waiting, anchor), costs, share_s=share_s, now=0.0)
    _check(plan, waiting, anchor, budget)
    assert plan == again


def _check(plan: Plan, waiting: np.ndarray[tuple[int, ...], np.dtype[np.int64]], anchor: int, budget: int) -> None:
    taken = dict(plan.takes)
    assert len(taken) == len(plan.takes)
    assert taken[anchor] >= 1
    assert all(0 < rows <= waiting[level] for level, rows in taken.items())
    assert plan.bucket.rows == sum(taken.values())
    assert plan.bucket.length == max(LADDER.lengths[level] for level in taken)
    assert plan.bucket.tokens <= budget or plan.bucket.rows == 1


@pytest.mark.parametrize(("most_s", "rows"), [(math.inf, 16), (0.0651, 8), (0.0649, 7), (0.009, 1), (1e-9, 1)])
def test_no_batch_takes_longer_than_it_may_but_a_row_alone(most_s: float, rows: int) -> None:
    ladder = Ladder((8, 16))
    costs = toys.linear_costs(ladder, fixed_s=0.001, token_s=0.001, batch_tokens=128)
    pool: Pool[None] = Pool(ladder)
    pool.add(queue_rows(ladder, "model", np.full(16, 8, np.int32), None))
    plan = OptimalCover(most_s)(pool.view(0), costs, share_s=math.inf, now=0.0)
    assert plan.bucket.rows == rows
    for _ in range(200):  # the machine has become twice as slow, so that half of it fits
        costs.learn(8, 8, 2 * costs.batch_seconds(0)[8])
    slower = OptimalCover(most_s)(pool.view(0), costs, share_s=math.inf, now=0.0)
    assert slower.bucket.rows == (rows if rows in (1, 16) else pytest.approx(rows / 2, abs=1))
