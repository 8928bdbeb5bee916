"""Costs and batches where rows are not padded: everything in virtual time, and every batch fits a shape."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.buckets import Bucket, Ladder
from pairwire.server.engine.batching.packing import FullestBatch, PackedCosts
from pairwire.server.engine.batching.planner import OptimalCover, Plan, PoolView
from pairwire.server.engine.batching.pool import QueuedRows, queue_rows
from pairwire.server.engine.batching.scheduler import Batch, BatchingRules, Scheduler
from pairwire.server.runtime.packed import PackedShape, PackedShapes

LONGEST = 200
LADDER = Ladder.unpadded(LONGEST)
SHAPES = PackedShapes(longest=LONGEST, most_tokens=512)


def _costs(shapes: PackedShapes = SHAPES, *, fixed_s: float = 0.001, token_s: float = 1e-5) -> PackedCosts:
    return PackedCosts(LADDER, {shape: fixed_s + token_s * shape.tokens for shape in shapes})


def _levels(*lengths: int) -> list[int]:
    levels: list[int] = LADDER.levels(np.array(lengths, np.int32)).tolist()
    return levels


def _pool(counts: Mapping[int, int], anchor: int, arrivals: Mapping[int, float] | None = None) -> PoolView:
    """This many rows of each length of the ladder; what is not said to arrive later arrives at 0."""
    waiting = np.zeros(len(LADDER), np.int64)
    came = np.full(len(LADDER), math.inf)
    for length, count in counts.items():
        waiting[_levels(length)] = count
        came[_levels(length)] = (arrivals or {}).get(length, 0.0)
    lengths = np.array(LADDER.lengths, np.int32)
    return PoolView(lengths, waiting, came, np.full(len(LADDER), math.inf), _levels(anchor)[0], len(LADDER))


def _plan(pool: PoolView, shapes: PackedShapes = SHAPES) -> Plan:
    return FullestBatch(shapes)(pool, _costs(shapes), share_s=math.inf, now=0.0)


def _lengths(plan: Plan) -> list[tuple[int, int]]:
    """(length, rows) of what is taken."""
    return [(LADDER.lengths[level], rows) for level, rows in plan.takes]


def test_costs_are_those_of_the_shape_that_holds_the_tokens() -> None:
    costs = PackedCosts(LADDER, {PackedShape(128, 64, 5): 0.1, PackedShape(128, 256, 19): 0.3})
    assert [costs.seconds(1, tokens) for tokens in (1, 64, 65, 256)] == [0.1, 0.1, 0.3, 0.3]
    assert costs.seconds(4, 64) == costs.seconds(1, 256)
    assert costs.seconds(1, 10_000) == 0.3  # there is no larger one


def test_of_shapes_with_equal_tokens_the_dearest_counts() -> None:
    measured = [(PackedShape(128, 64, 5), 0.1), (PackedShape(200, 64, 5), 0.2)]
    for order in (measured, measured[::-1]):
        assert PackedCosts(LADDER, dict(order)).seconds(1, 64) == 0.2


@given(st.lists(st.floats(0, 1), min_size=len(list(SHAPES)), max_size=len(list(SHAPES))))
def test_noise_never_makes_more_tokens_look_cheaper(seconds: list[float]) -> None:
    costs = PackedCosts(LADDER, dict(zip(SHAPES, seconds, strict=True)))
    by_tokens = [costs.seconds(1, tokens) for tokens in range(1, SHAPES.tokens[-1] + 1)]
    assert by_tokens == sorted(by_tokens)
    assert by_tokens[0] > 0
    assert (np.diff(costs.row_seconds()) > 0).all()
    for level in range(len(LADDER)):
        assert list(costs.batch_seconds(level)) == sorted(costs.batch_seconds(level))


def test_a_full_batch_has_as_many_rows_as_tokens_allow() -> None:
    costs = _costs()
    for level, length in enumerate(LADDER.lengths):
        assert costs.best_rows(level) == costs.worthwhile_rows(length) == 512 // length
        assert len(costs.batch_seconds(level)) == costs.best_rows(level) + 1
        assert costs.batch_seconds(level)[0] == 0.0


def test_a_row_longer_than_a_batch_is_still_one() -> None:
    costs = PackedCosts(LADDER, {PackedShape(200, 64, 5): 0.1})
    assert costs.best_rows(len(LADDER) - 1) == 1
    assert costs.worthwhile_rows(LONGEST) == 1


def test_rows_cost_their_part_of_a_full_batch() -> None:
    costs = _costs(fixed_s=0.0512, token_s=0.0)
    np.testing.assert_allclose(costs.row_seconds(), 0.0001 * np.array(LADDER.lengths))


def test_costs_follow_what_batches_really_take() -> None:
    costs = _costs()
    before = costs.seconds(1, 512)
    rows = costs.row_seconds()
    assert costs.factor == 1.0
    for _ in range(1000):
        costs.learn(1, 512, 2 * before)
    assert costs.factor == pytest.approx(2.0, rel=0.01)
    assert costs.seconds(1, 512) == pytest.approx(2 * before, rel=0.01)
    np.testing.assert_allclose(costs.row_seconds(), 2 * rows, rtol=0.01)


def test_costs_without_a_measurement_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one measured shape"):
        PackedCosts(LADDER, {})


def test_a_row_that_waits_alone_is_run_in_the_smallest_shape() -> None:
    assert _plan(_pool({8: 1}, 8)) == Plan(Bucket(1, 64), ((_levels(8)[0], 1),))
    assert _plan(_pool({136: 1}, 136)).bucket == Bucket(1, 192)


def test_all_that_waits_shares_a_batch_where_it_fits() -> None:
    plan = _plan(_pool({8: 3, 48: 2, 120: 1}, 48))
    assert sorted(_lengths(plan)) == [(8, 3), (48, 2), (120, 1)]
    assert plan.bucket == Bucket(1, 256)  # of 240 tokens


def test_the_anchor_goes_first_and_then_who_came_first() -> None:
    pool = _pool({8: 1, 16: 1, 24: 1, 32: 1}, 24, {8: 3.0, 16: 1.0, 24: 9.0, 32: 2.0})
    assert _lengths(_plan(pool)) == [(24, 1), (16, 1), (32, 1), (8, 1)]


def test_a_batch_holds_no_more_than_the_most_tokens() -> None:
    plan = _plan(_pool({120: 9}, 120))
    assert _lengths(plan) == [(120, 4)]
    assert plan.bucket == Bucket(1, 512)
    plan = _plan(_pool({120: 9, 8: 99, 40: 2}, 120, {8: 2.0, 40: 1.0}))
    assert _lengths(plan) == [(120, 4), (8, 4)]  # 480 tokens leave no room for 40, but for 4 rows of 8


def test_a_batch_holds_no_more_than_the_most_rows() -> None:
    assert SHAPES.most_rows == 32
    assert _lengths(_plan(_pool({8: 99, 16: 1}, 8))) == [(8, 32)]
    assert _lengths(_plan(_pool({8: 99, 16: 5}, 16))) == [(16, 5), (8, 27)]


def test_the_anchor_is_taken_even_where_one_row_is_more_than_a_batch_should_have() -> None:
    shapes = PackedShapes(longest=LONGEST, most_tokens=64)
    plan = _plan(_pool({200: 3, 8: 5}, 200), shapes)
    assert _lengths(plan) == [(200, 1)]
    assert plan.bucket.tokens == 200


@given(
    counts=st.dictionaries(st.sampled_from(LADDER.lengths), st.integers(1, 90), min_size=1),
    anchor=st.integers(0, 99),
    came=st.lists(st.floats(0, 9), min_size=len(LADDER), max_size=len(LADDER)),
    most_tokens=st.integers(1, 2000),
)
def test_whatever_waits_the_plan_holds_the_anchor_fits_and_leaves_no_room_for_more(
    counts: dict[int, int], anchor: int, came: list[float], most_tokens: int
) -> None:
    shapes = PackedShapes(longest=LONGEST, most_tokens=most_tokens)
    first = sorted(counts)[anchor % len(counts)]
    plan = _plan(_pool(counts, first, dict(zip(LADDER.lengths, came, strict=True))), shapes)
    taken = dict(_lengths(plan))
    assert taken[first] >= 1
    assert len(taken) == len(plan.takes)
    assert all(0 < rows <= counts[length] for length, rows in taken.items())
    tokens, rows = sum(length * count for length, count in taken.items()), sum(taken.values())
    assert plan.bucket == Bucket(1, shapes.fit(tokens, rows, max(taken)).tokens)
    left = [length for length, count in counts.items() if count > taken.get(length, 0)]
    assert not left or rows == shapes.most_rows or tokens + min(left) > shapes.tokens[-1]


class Machine:
    """A packed runtime and its workers in virtual time. Whoever runs a batch that does not fit is told so."""

    def __init__(self, shapes: PackedShapes, *, workers: int) -> None:
        self.shapes = shapes
        self.scheduler: Scheduler[int] = Scheduler(
            {"a": BatchingRules(LADDER, _costs(shapes), FullestBatch(shapes))},
            OptimalCover(),
            workers=workers,
            queue_tokens=10**9,
        )
        self.batches: list[Batch[int]] = []
        self.finished: list[QueuedRows[int]] = []
        self.padding = 0
        self._now = 0.0
        self._ends: list[tuple[float, int, Batch[int]]] = []

    def admit(self, number: int, lengths: Sequence[int], at: float) -> None:
        self._run_until(at)
        self._now = at
        self.scheduler.admit(queue_rows(LADDER, "a", np.array(lengths, np.int32), number), at)

    def drain(self) -> None:
        self._run_until(math.inf)

    def _run_until(self, until: float) -> None:
        self._start()
        while self._ends and self._ends[0][0] <= until:
            self._now, _, batch = heapq.heappop(self._ends)
            self.finished += self.scheduler.complete(batch, self._now)
            self._start()

    def _start(self) -> None:
        while self.scheduler.idle_workers and (batch := self.scheduler.next_batch(self._now).batch) is not None:
            lengths = np.concatenate([piece.queued.lengths[piece.rows] for piece in batch.pieces])
            shape = self.shapes.fit(int(lengths.sum()), len(lengths), int(lengths.max()))
            assert batch.bucket == Bucket(1, shape.tokens)  # what is told as computed is what is computed
            assert (batch.tokens, batch.rows) == (lengths.sum(), len(lengths))
            assert batch.expected_s == pytest.approx(0.001 + 1e-5 * shape.tokens)
            self.batches.append(batch)
            self.padding += batch.bucket.tokens - batch.tokens
            heapq.heappush(self._ends, (self._now + batch.expected_s, batch.number, batch))


@given(
    traffic=st.lists(
        st.tuples(st.lists(st.integers(1, LONGEST), min_size=1, max_size=60), st.floats(0, 0.01)), min_size=1
    ),
    most_tokens=st.integers(1, 1500),
    workers=st.integers(1, 3),
)
def test_nothing_is_lost_or_run_twice_and_all_padding_is_somebodys(
    traffic: list[tuple[list[int], float]], most_tokens: int, workers: int
) -> None:
    machine = Machine(PackedShapes(longest=LONGEST, most_tokens=most_tokens), workers=workers)
    at = 0.0
    for number, (lengths, gap) in enumerate(traffic):
        at += gap
        machine.admit(number, lengths, at)
    machine.drain()
    ran = Counter(
        (piece.queued.payload, row)
        for batch in machine.batches
        for piece in batch.pieces
        for row in piece.rows.tolist()
    )
    assert ran == Counter((number, row) for number, (lengths, _) in enumerate(traffic) for row in range(len(lengths)))
    assert sorted(request.payload for request in machine.finished) == list(range(len(traffic)))
    assert sum(request.padded_tokens for request in machine.finished) == machine.padding
    assert min(request.padded_tokens for request in machine.finished) >= 0


def test_padding_is_shared_by_the_tokens_of_each_request() -> None:
    machine = Machine(SHAPES, workers=1)
    machine.scheduler.admit(queue_rows(LADDER, "a", np.array([30, 10], np.int32), 0), 0.0)
    machine.scheduler.admit(queue_rows(LADDER, "a", np.array([10], np.int32), 1), 0.0)
    machine.drain()
    (batch,) = machine.batches
    assert (batch.tokens, batch.bucket) == (50, Bucket(1, 64))
    # Segments are shared out one after the other: 30, 10 and 10 of 14.
    assert {request.payload: request.padded_tokens for request in machine.finished} == {0: 11, 1: 3}


def test_a_row_alone_has_all_the_padding() -> None:
    machine = Machine(SHAPES, workers=1)
    machine.admit(0, [50], 0.0)
    machine.drain()
    assert [request.padded_tokens for request in machine.finished] == [14]


def test_requests_that_come_while_a_batch_runs_share_the_next() -> None:
    machine = Machine(SHAPES, workers=1)
    for number in range(6):
        machine.admit(number, [20, 3 + number], 0.0001 * number)
    machine.drain()
    assert [batch.rows for batch in machine.batches] == [2, 10]
