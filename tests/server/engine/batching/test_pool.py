"""The pool against the plainest model of it: a list of (length, due, sequence) that is sorted again every time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.buckets import Ladder
from pairwire.server.engine.batching.pool import Pool, QueuedRows, queue_rows

LADDER = Ladder.up_to(64)

operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(1, 64), min_size=1, max_size=8)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("take"), st.tuples(st.integers(0, 7), st.integers(1, 5))),
    ),
    max_size=40,
)


def _request(lengths: list[int], number: int) -> QueuedRows[int]:
    request = queue_rows(LADDER, "toy", np.array(lengths, dtype=np.int32), number)
    request.sequence, request.arrival, request.deadline = number, float(number), 100.0 + number
    request.due = _due(number)
    return request


def _due(number: int) -> float:
    """Neither ascending nor without equals."""
    return float(number * 7 % 5)


def _level(length: int) -> int:
    return next(level for level, limit in enumerate(LADDER.lengths) if length <= limit)


@given(operations)
def test_a_pool_is_a_list_sorted_by_padded_length_and_when_it_is_due(steps: list[tuple[str, object]]) -> None:
    pool: Pool[int] = Pool(LADDER)
    requests: list[QueuedRows[int]] = []
    waiting: list[tuple[int, int, int]] = []  # level, request, row
    for kind, detail in steps:
        if kind == "add":
            assert isinstance(detail, list)
            request = _request(detail, len(requests))
            requests.append(request)
            pool.add(request)
            waiting += [(_level(length), request.sequence, row) for row, length in enumerate(detail)]
        elif kind == "remove":
            present = [request for request in requests if request.waiting]
            if present:
                assert isinstance(detail, int)
                request = present[detail % len(present)]
                pool.remove(request)
                waiting = [entry for entry in waiting if entry[1] != request.sequence]
        else:
            assert isinstance(detail, tuple)
            level, count = detail
            here = sorted((entry for entry in waiting if entry[0] == level), key=lambda e: (_due(e[1]), e))[:count]
            pieces = pool.take(level, len(here)) if here else []
            assert [(level, piece.queued.sequence, int(row)) for piece in pieces for row in piece.rows] == here
            assert sum(piece.tokens for piece in pieces) == sum(requests[at].lengths[row] for _, at, row in here)
            waiting = [entry for entry in waiting if entry not in here]
        _check(pool, requests, waiting)


def _check(pool: Pool[int], requests: list[QueuedRows[int]], waiting: list[tuple[int, int, int]]) -> None:
    view = pool.view(anchor=0)
    assert pool.rows == len(waiting)
    assert pool.tokens == sum(requests[at].lengths[row] for _, at, row in waiting)
    for level in range(len(LADDER)):
        here = [at for where, at, _ in waiting if where == level]
        first = min(here, key=lambda at: (_due(at), at), default=np.inf)
        assert view.counts[level] == len(here)
        assert view.arrivals[level] == first
        assert view.deadlines[level] == 100.0 + first
    for request in requests:
        assert request.waiting == sum(at == request.sequence for _, at, _ in waiting)
        assert sorted(request.by_level) == sorted({level for level, at, _ in waiting if at == request.sequence})


def test_a_pool_of_many_rows_plans_on_few_numbers() -> None:
    pool: Pool[int] = Pool(LADDER)
    pool.add(_request([1 + number % 64 for number in range(10_000)], 0))
    view = pool.view(anchor=3)
    assert len(view.counts) == len(LADDER)
    assert view.counts.sum() == 10_000
    assert view.anchor == 3
