"""The scheduler in virtual time: no thread, no runtime, no waiting."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.engine.batching.buckets import Ladder
from pairwire.server.engine.batching.planner import OptimalCover
from pairwire.server.engine.batching.pool import QueuedRows, queue_rows
from pairwire.server.engine.batching.priority import Priority
from pairwire.server.engine.batching.scheduler import STRETCH, Batch, BatchingRules, Scheduler
from pairwire.server.errors import DeadlineExceeded, InvalidInput, Overloaded
from tests.server.engine import toys

LADDER = Ladder(tuple(range(8, 129, 8)))


def _scheduler(
    *,
    workers: int = 1,
    queue_tokens: int = 10_000,
    budget: int = 128,
    stretch: float = 0.0,
    queue_s: float = math.inf,
    low_queue_s: float = math.inf,
    weights: Mapping[str, float] | None = None,
    random: Callable[[], float] = lambda: 0.5,
) -> Scheduler[str]:
    """Two models, "a" and "b"; a token costs 1 ms."""
    lanes = {
        name: BatchingRules(LADDER, toys.linear_costs(LADDER, fixed_s=1e-9, token_s=0.001, batch_tokens=budget))
        for name in "ab"
    }
    return Scheduler(
        lanes,
        OptimalCover(),
        workers=workers,
        queue_tokens=queue_tokens,
        queue_s=queue_s,
        low_queue_s=low_queue_s,
        weights=weights,
        stretch=stretch,
        random=random,
    )


def _request(
    *lengths: int,
    model: str = "a",
    name: str = "",
    deadline: float = math.inf,
    priority: Priority = Priority.NORMAL,
    caller: str = "",
) -> QueuedRows[str]:
    rows = np.array(lengths, dtype=np.int32)
    return queue_rows(LADDER, model, rows, name, deadline=deadline, priority=priority, caller=caller)


def _next(scheduler: Scheduler[str], now: float = 0.0) -> Batch[str]:
    batch = scheduler.next_batch(now).batch
    assert batch is not None
    return batch


def _order(scheduler: Scheduler[str], now: float) -> list[str]:
    """Who is served in which order from now on, one row a batch."""
    order = []
    while (batch := scheduler.next_batch(now).batch) is not None:
        order += [name for name, _ in _rows(batch)]
    return order


def _rows(batch: Batch[str]) -> list[tuple[str, int]]:
    return [(piece.queued.payload, int(row)) for piece in batch.pieces for row in piece.rows]


def test_nothing_waits_nothing_runs() -> None:
    decision = _scheduler().next_batch(0.0)
    assert decision.batch is None
    assert decision.expired == []


def test_a_request_is_done_with_its_last_row() -> None:
    scheduler = _scheduler()
    request = _request(100, 100, name="two")
    scheduler.admit(request, 1.0)
    first = _next(scheduler, 2.0)
    assert scheduler.complete(first, 3.0) == []
    second = _next(scheduler, 4.0)
    assert scheduler.complete(second, 6.0) == [request]
    assert (request.arrival, request.started, request.finished) == (1.0, 2.0, 6.0)
    assert request.padded_tokens == 2 * (104 - 100)
    assert not request.open


def test_requests_of_one_length_share_a_batch_in_order_of_admission() -> None:
    scheduler = _scheduler()
    for name in ("first", "second", "third"):
        scheduler.admit(_request(10, 12, name=name), 0.0)
    assert _rows(_next(scheduler)) == [(name, row) for name in ("first", "second", "third") for row in (0, 1)]


def test_the_longest_rows_of_a_request_run_first() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(10, 100, 50, name="mixed"), 0.0)
    assert [_next(scheduler).bucket.length for _ in range(3)] == [104, 56, 16]


def test_every_batch_has_a_row_of_the_oldest_request_whatever_its_length() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(8, name="short"), 0.0)
    scheduler.admit(_request(*[100] * 50, name="flood"), 1.0)
    scheduler.admit(_request(8, name="late"), 2.0)
    assert _rows(_next(scheduler)) == [("short", 0), ("late", 0)]
    assert _rows(_next(scheduler)) == [("flood", 0)]


def test_models_take_turns_by_age() -> None:
    scheduler = _scheduler()
    for number, model in enumerate("abba"):
        scheduler.admit(_request(100, model=model, name=str(number)), float(number))
    order = [_next(scheduler, 5.0) for _ in range(4)]
    assert [batch.model for batch in order] == ["a", "b", "b", "a"]


def test_idle_workers_share_a_request() -> None:
    scheduler = _scheduler(workers=2)
    scheduler.admit(_request(*[16] * 8, name="eight"), 0.0)
    assert [_next(scheduler).rows, _next(scheduler).rows] == [4, 4]
    assert scheduler.next_batch(0.0).batch is None


def test_the_last_batches_are_cut_so_that_all_workers_finish_together() -> None:
    scheduler = _scheduler(workers=2, budget=512)
    scheduler.admit(_request(*[64] * 12), 0.0)
    first, second = _next(scheduler), _next(scheduler)
    assert [first.rows, second.rows] == [6, 6]
    scheduler.admit(_request(*[64] * 3), 0.0)
    scheduler.complete(first, 0.384)
    assert _next(scheduler, 0.384).rows == 2  # the other worker is about to end and takes the last one
    scheduler.complete(second, 0.384)
    assert _next(scheduler, 0.384).rows == 1


@pytest.mark.parametrize(("now", "rows"), [(0.0, 4), (0.096, 3), (0.128, 2)])
def test_what_others_are_busy_with_counts_for_a_workers_share(now: float, rows: int) -> None:
    scheduler = _scheduler(workers=2, budget=512)
    scheduler.admit(_request(128, model="b"), 0.0)
    assert _next(scheduler).expected_s == pytest.approx(0.128)
    scheduler.admit(_request(*[16] * 4), now)
    assert _next(scheduler, now).rows == rows


def test_the_urgent_go_first_and_equals_in_order_of_arrival() -> None:
    scheduler = _scheduler()
    for name in ("low", "normal", "high", "low 2", "normal 2", "high 2"):
        scheduler.admit(_request(100, name=name, priority=Priority(name.split()[0])), 0.0)
    assert _order(scheduler, 0.0) == ["high", "high 2", "normal", "normal 2", "low", "low 2"]


def test_the_urgent_go_first_within_a_length_too() -> None:
    scheduler = _scheduler(budget=16)
    for name in ("low", "normal", "high"):
        scheduler.admit(_request(16, name=name, priority=Priority(name)), 0.0)
    assert _order(scheduler, 0.0) == ["high", "normal", "low"]


@pytest.mark.parametrize(
    ("patient", "urgent"),
    [(Priority.NORMAL, Priority.HIGH), (Priority.LOW, Priority.HIGH), (Priority.LOW, Priority.NORMAL)],
)
def test_nothing_overtakes_what_has_waited_longer_than_the_difference_in_patience(
    patient: Priority, urgent: Priority
) -> None:
    ahead = patient.patience_s - urgent.patience_s
    for after_s, order in ((ahead - 0.01, ["late", "old"]), (ahead + 0.01, ["old", "late"])):
        scheduler = _scheduler()
        scheduler.admit(_request(100, name="old", priority=patient), 0.0)
        scheduler.admit(_request(100, name="late", priority=urgent), after_s)
        assert _order(scheduler, after_s) == order


def test_a_small_request_overtakes_a_large_one_that_came_shortly_before_and_no_other() -> None:
    scheduler = _scheduler(stretch=4.0)
    scheduler.admit(_request(*[128] * 10, name="large"), 0.0)  # takes 1.28 s, so it gives way for 5.12 s
    scheduler.admit(_request(8, name="small"), 1.0)
    assert [piece.queued.payload for piece in _next(scheduler, 1.0).pieces] == ["small"]
    scheduler.admit(_request(8, name="late"), 5.2)
    assert [piece.queued.payload for piece in _next(scheduler, 5.2).pieces] == ["large"]


def test_within_the_patience_the_tighter_deadline_goes_first() -> None:
    scheduler = _scheduler()
    for name, deadline in (("none", math.inf), ("far", 60.0), ("near", 0.9), ("nearest", 0.5)):
        scheduler.admit(_request(100, name=name, deadline=deadline), 0.0)
    assert _order(scheduler, 0.0) == ["nearest", "near", "none", "far"]


def test_of_equal_deadlines_the_one_with_more_to_do_goes_first() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(16, name="short", deadline=0.9), 0.0)
    scheduler.admit(_request(100, 100, name="long", deadline=0.9), 0.0)
    assert _order(scheduler, 0.0) == ["long", "long", "short"]


def test_no_deadline_is_so_tight_that_it_overtakes_what_is_due() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(100, name="high", priority=Priority.HIGH), 0.0)
    scheduler.admit(_request(100, name="tight", deadline=0.5), 0.001)
    assert _order(scheduler, 0.001) == ["high", "tight"]


def test_cancelled_rows_leave_the_queue_at_once_and_running_ones_are_disregarded() -> None:
    scheduler = _scheduler()
    gone, stays = _request(100, 100, name="gone"), _request(100, name="stays")
    scheduler.admit(gone, 0.0)
    scheduler.admit(stays, 0.0)
    batch = _next(scheduler)
    assert _rows(batch) == [("gone", 0)]
    assert scheduler.cancel(gone)
    assert not scheduler.cancel(gone)
    assert scheduler.queued_tokens == 100
    assert scheduler.complete(batch, 1.0) == []
    assert _rows(_next(scheduler)) == [("stays", 0)]


def test_a_failed_batch_takes_the_rest_of_its_requests_along_and_nothing_else() -> None:
    scheduler = _scheduler()
    torn, whole = _request(100, 100, name="torn"), _request(100, name="whole")
    scheduler.admit(torn, 0.0)
    scheduler.admit(whole, 0.0)
    assert scheduler.fail(_next(scheduler)) == [torn]
    batch = _next(scheduler)
    assert _rows(batch) == [("whole", 0)]
    assert scheduler.complete(batch, 1.0) == [whole]


def test_expired_request_is_dropped_before_run() -> None:
    scheduler = _scheduler()
    late, fine = _request(8, name="late", deadline=5.0), _request(8, name="fine", deadline=5.1)
    scheduler.admit(late, 0.0)
    scheduler.admit(fine, 0.0)
    decision = scheduler.next_batch(5.0)
    assert decision.expired == [late]
    assert decision.batch is not None
    assert _rows(decision.batch) == [("fine", 0)]


def test_a_request_that_expires_while_it_runs_is_told_so_and_its_rest_is_dropped() -> None:
    scheduler = _scheduler()
    request = _request(100, 100, deadline=5.0)
    scheduler.admit(request, 0.0)
    batch = _next(scheduler, 4.7)
    decision = scheduler.next_batch(5.0)
    assert decision.expired == [request]
    assert decision.batch is None
    assert scheduler.complete(batch, 6.0) == []


def test_a_deadline_that_has_passed_is_refused_at_admission() -> None:
    with pytest.raises(DeadlineExceeded, match="had passed before"):
        _scheduler().admit(_request(8, deadline=5.0), 5.0)


def test_a_deadline_that_cannot_be_met_is_refused_with_the_estimate_and_a_time_to_come_back() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(*[104] * 9, priority=Priority.HIGH), 0.0)  # 0.936 s, then a batch of company
    with pytest.raises(DeadlineExceeded, match=r"about 1\.144 s and the deadline is in 0\.500 s") as caught:
        scheduler.admit(_request(104, deadline=0.5), 0.0)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s > 0.9
    scheduler.admit(_request(104, deadline=1.3), 0.0)


def test_the_estimate_leaves_out_what_would_be_overtaken() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(*[104] * 9), 0.0)  # 0.936 s, due after three seconds
    scheduler.admit(_request(104, deadline=0.5), 0.0)  # goes first, for its deadline
    scheduler.admit(_request(104, deadline=0.9, priority=Priority.HIGH), 0.0)
    with pytest.raises(DeadlineExceeded, match=r"about 1\.352 s and the deadline is in 1\.000 s"):
        scheduler.admit(_request(104, deadline=4.2), 3.2)  # nobody is overtaken who has waited out its patience


def test_nobody_is_let_in_at_the_cost_of_a_deadline_that_was_accepted_before() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(*[104] * 5, name="first", deadline=0.8), 0.0)  # 0.52 s
    with pytest.raises(DeadlineExceeded, match="requests that were accepted before would be"):
        scheduler.admit(_request(104, 104, deadline=0.3), 0.0)
    scheduler.admit(_request(104, 104, deadline=3.0), 0.0)  # comes after it
    scheduler.admit(_request(104, 104, deadline=0.3, priority=Priority.HIGH), 0.0)  # HIGH goes first whatever it costs


def test_what_cannot_be_done_in_time_any_more_is_dropped_before_it_costs_anything() -> None:
    scheduler = _scheduler()
    late, fine = _request(*[104] * 5, name="late", deadline=1.0), _request(104, name="fine", deadline=2.0)
    scheduler.admit(late, 0.0)
    scheduler.admit(fine, 0.0)
    decision = scheduler.next_batch(0.6)  # 0.52 s of work, and 0.4 s left
    assert decision.expired == [late]
    assert decision.batch is not None
    assert _rows(decision.batch) == [("fine", 0)]


def test_the_wait_is_bounded_and_longer_for_what_nobody_watches() -> None:
    scheduler = _scheduler(queue_s=0.5, low_queue_s=2.0)
    scheduler.admit(_request(*[104] * 6, priority=Priority.HIGH), 0.0)
    for priority in (Priority.HIGH, Priority.NORMAL):
        with pytest.raises(Overloaded, match=rf"about 0\.624 s, and at {priority.value} priority it may be 0\.5 s"):
            scheduler.admit(_request(8, priority=priority), 0.0)
    scheduler.admit(_request(*[104] * 20, priority=Priority.LOW), 0.0)
    with pytest.raises(Overloaded, match=r"about 2\.704 s, and at low priority it may be 2 s"):
        scheduler.admit(_request(8, priority=Priority.LOW), 0.0)


def test_push_back_grows_with_what_was_turned_away_and_differs_from_call_to_call() -> None:
    draws = itertools.cycle([0.0, 1.0])
    scheduler = _scheduler(queue_s=0.5, random=lambda: next(draws))
    scheduler.admit(_request(*[104] * 6), 0.0)
    told = []
    for _ in range(20):
        with pytest.raises(Overloaded) as caught:
            scheduler.admit(_request(104), 0.0)
        told.append(caught.value.retry_after_s)
    assert told[0] == pytest.approx(0.75 * (0.624 + 0.104))
    assert told[1] == pytest.approx(1.25 * (0.624 + 0.208))
    assert told[::2] == sorted(told[::2])
    assert told[-1] > 3 * told[1]
    with pytest.raises(Overloaded) as caught:
        scheduler.admit(_request(104), 60.0)  # all of them have come back, or never will
    assert caught.value.retry_after_s < told[2]


def test_a_server_that_takes_twice_as_long_as_was_measured_accepts_half() -> None:
    scheduler = _scheduler()
    for _ in range(60):
        scheduler.admit(_request(104), 0.0)
        scheduler.complete(_next(scheduler, 0.0), 0.208)
    with pytest.raises(DeadlineExceeded, match=r"about 0\.20\d s and the deadline is in 0\.150 s"):
        scheduler.admit(_request(104, deadline=10.15), 10.0)
    scheduler.admit(_request(104, deadline=10.3), 10.0)


def test_work_that_is_being_read_counts_and_gives_its_place_to_what_is_admitted() -> None:
    scheduler = _scheduler(queue_s=0.5)
    booking = scheduler.expect("a", "", Priority.NORMAL, math.inf, rows=6, row_tokens=104, now=0.0)
    with pytest.raises(Overloaded):
        scheduler.admit(_request(8), 4.0)  # the six are due before it by now
    scheduler.admit(_request(*[104] * 2, name="part"), 0.0, booking)
    scheduler.admit(_request(*[104] * 4, name="rest"), 0.0, booking)
    assert booking.rows == 0
    assert _order(scheduler, 0.0)[:2] == ["part", "part"]


def test_a_booking_that_is_given_up_leaves_nothing_behind() -> None:
    scheduler = _scheduler(queue_s=0.5)
    booking = scheduler.expect("a", "", Priority.NORMAL, math.inf, rows=60, row_tokens=104, now=0.0)
    scheduler.release(booking, 20)
    with pytest.raises(Overloaded):
        scheduler.admit(_request(8), 30.0)
    scheduler.release(booking)
    scheduler.release(booking)
    scheduler.admit(_request(8), 30.0)


def test_who_wants_little_waits_for_nobodys_backlog() -> None:
    scheduler = _scheduler(queue_tokens=100_000)
    for _ in range(20):
        scheduler.admit(_request(*[104] * 10, name="flood", caller="flood"), 0.0)
    for number in range(30):
        now = 0.104 * number
        if number % 5 == 4:
            scheduler.admit(_request(104, name="small", caller="small"), now)
        batch = _next(scheduler, now)
        assert (_rows(batch)[0][0] == "small") == (number % 5 == 4)
        scheduler.complete(batch, now + 0.104)


def test_callers_get_their_shares_by_weight_and_nothing_is_left_idle() -> None:
    scheduler = _scheduler(queue_tokens=100_000, weights={"heavy": 3.0})
    for name in ("heavy", "light"):
        scheduler.admit(_request(*[104] * 200, name=name, caller=name), 0.0)
    taken = Counter(_rows(_next(scheduler))[0][0] for _ in range(120))
    assert taken["heavy"] == pytest.approx(90, abs=6)
    rest = Counter(_rows(_next(scheduler))[0][0] for _ in range(280))
    assert rest + taken == Counter(heavy=200, light=200)


def test_high_priority_goes_first_whoever_it_is_of() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(*[104] * 3, name="small", caller="small"), 0.0)
    scheduler.admit(_request(*[104] * 20, name="flood", caller="flood"), 0.0)
    scheduler.admit(_request(104, name="high", caller="flood", priority=Priority.HIGH), 0.0)
    assert _order(scheduler, 0.0)[0] == "high"


def test_one_row_is_not_shared_by_workers_in_an_estimate() -> None:
    with pytest.raises(DeadlineExceeded, match=r"about 0\.104 s and the deadline is in 0\.050 s"):
        _scheduler(workers=4).admit(_request(104, deadline=0.05), 0.0)


def test_the_estimate_counts_running_batches_and_shares_work_among_workers() -> None:
    scheduler = _scheduler(workers=2)
    scheduler.admit(_request(*[100] * 3), 0.0)
    assert scheduler.estimated_wait_s(0.0) == pytest.approx(0.312 / 2)
    _next(scheduler, 0.0)
    assert scheduler.estimated_wait_s(0.0) == pytest.approx(0.312 / 2)
    assert scheduler.estimated_wait_s(0.05) == pytest.approx((0.312 - 0.05) / 2)
    assert scheduler.estimated_wait_s(10.0) == pytest.approx(0.208 / 2)


def test_a_full_queue_refuses_and_says_when_there_will_be_room() -> None:
    scheduler = _scheduler(queue_tokens=1000)
    scheduler.admit(_request(*[96] * 10), 0.0)  # 960 tokens, 0.96 s
    with pytest.raises(Overloaded, match="960 tokens of at most 1000") as caught:
        scheduler.admit(_request(136 - 16), 0.0)
    assert caught.value.retry_after_s == pytest.approx(0.96 + 0.12)
    scheduler.admit(_request(40), 0.0)


def test_room_comes_back_as_work_starts_or_is_cancelled() -> None:
    scheduler = _scheduler(queue_tokens=200)
    first, second = _request(100, name="first"), _request(100, name="second")
    scheduler.admit(first, 0.0)
    scheduler.admit(second, 0.0)
    with pytest.raises(Overloaded):
        scheduler.admit(_request(100), 0.0)
    _next(scheduler)
    scheduler.admit(_request(100, name="third"), 0.0)
    scheduler.cancel(second)
    scheduler.admit(_request(100, name="fourth"), 0.0)
    assert scheduler.queued_tokens == 200


def test_a_request_larger_than_the_queue_is_invalid_and_named() -> None:
    request = queue_rows(LADDER, "a", np.full(20, 100, np.int32), "", field="documents")
    with pytest.raises(
        InvalidInput, match=r"documents: 2000 tokens are more than the whole queue holds \(1000\)"
    ) as caught:
        _scheduler(queue_tokens=1000).admit(request, 0.0)
    assert caught.value.field == "documents"


def test_statistics_tell_queue_and_runs_by_model() -> None:
    scheduler = _scheduler()
    scheduler.admit(_request(100, 100, model="a"), 0.0)
    scheduler.admit(_request(20, model="b"), 0.0)
    _next(scheduler)
    statistics = scheduler.statistics(0.0)
    assert (statistics.queued_rows, statistics.queued_tokens) == (2, 120)
    assert (statistics.running_rows, statistics.running_batches) == (1, 1)
    assert (statistics.models["a"].queued_rows, statistics.models["a"].running_rows) == (1, 1)
    assert (statistics.models["b"].queued_tokens, statistics.models["b"].running_rows) == (20, 0)
    assert statistics.estimated_wait_s == scheduler.estimated_wait_s(0.0)


def test_closing_everything_gives_back_every_open_request_once() -> None:
    scheduler = _scheduler()
    requests = [_request(100, name=str(number)) for number in range(3)]
    for request in requests:
        scheduler.admit(request, 0.0)
    batch = _next(scheduler)
    assert scheduler.cancel_all() == requests
    assert scheduler.cancel_all() == []
    assert scheduler.queued_tokens == 0
    assert scheduler.complete(batch, 1.0) == []


def test_many_closed_requests_with_far_deadlines_leave_nothing_behind() -> None:
    scheduler = _scheduler()
    for number in range(5000):
        scheduler.admit(_request(8, deadline=1e6 + number), 0.0)
        scheduler.complete(_next(scheduler), 0.0)
    assert scheduler.next_batch(2e6).expired == []


@dataclass
class Trace:
    """What happened to every row in one simulated run."""

    admitted: list[QueuedRows[str]] = field(default_factory=list)
    batches: list[Batch[str]] = field(default_factory=list)
    finished: list[QueuedRows[str]] = field(default_factory=list)
    expired: list[QueuedRows[str]] = field(default_factory=list)
    cancelled: list[QueuedRows[str]] = field(default_factory=list)
    failed: list[QueuedRows[str]] = field(default_factory=list)

    def log(self) -> list[tuple[float, str, int, int, list[tuple[str, int]]]]:
        return [(b.started, b.model, b.bucket.rows, b.bucket.length, _rows(b)) for b in self.batches]


@dataclass(frozen=True)
class Arrival:
    """One request of a simulated run; times relative to the one before."""

    after_s: float
    lengths: tuple[int, ...]
    model: str
    timeout_s: float
    cancelled_after_s: float
    priority: Priority


arrivals = st.lists(
    st.builds(
        Arrival,
        after_s=st.sampled_from([0.0, 0.0, 0.01, 0.2, 3.0]),
        lengths=st.lists(st.integers(1, 128), min_size=1, max_size=12).map(tuple),
        model=st.sampled_from("ab"),
        timeout_s=st.sampled_from([math.inf, 5.0, 0.3, 0.05]),
        cancelled_after_s=st.sampled_from([math.inf, math.inf, 0.1, 0.0]),
        priority=st.sampled_from(Priority),
    ),
    min_size=1,
    max_size=25,
)


def _simulate(
    plan: Sequence[Arrival], workers: int, failing: frozenset[int] = frozenset(), *, stretch: float = STRETCH
) -> Trace:
    """Runs arrivals through a scheduler whose workers take exactly as long as the cost table says."""
    scheduler, trace = _scheduler(workers=workers, queue_tokens=3000, stretch=stretch), Trace()
    events: list[tuple[float, int, str, object]] = []  # (time, order, kind, subject)
    time = 0.0
    for number, arrival in enumerate(plan):
        time += arrival.after_s
        request = _request(
            *arrival.lengths,
            model=arrival.model,
            name=str(number),
            deadline=time + arrival.timeout_s,
            priority=arrival.priority,
        )
        events.append((time, number, "admit", request))
        if arrival.cancelled_after_s < math.inf:
            events.append((time + arrival.cancelled_after_s, number, "cancel", request))
    idle = workers
    while events or idle < workers:
        events.sort(key=lambda event: event[:2])
        now, _, kind, subject = events.pop(0)
        if kind == "admit":
            assert isinstance(subject, QueuedRows)
            try:
                scheduler.admit(subject, now)
                trace.admitted.append(subject)
            except (Overloaded, DeadlineExceeded):
                pass
        elif kind == "cancel":
            assert isinstance(subject, QueuedRows)
            if scheduler.cancel(subject):
                trace.cancelled.append(subject)
        else:
            assert isinstance(subject, Batch)
            idle += 1
            if subject.number in failing:
                trace.failed += scheduler.fail(subject)
            else:
                trace.finished += scheduler.complete(subject, now)
        while idle:
            decision = scheduler.next_batch(now)
            trace.expired += decision.expired
            if decision.batch is None:
                break
            idle -= 1
            trace.batches.append(decision.batch)
            events.append((now + decision.batch.expected_s, 1000 + decision.batch.number, "done", decision.batch))
    trace.expired += scheduler.next_batch(math.inf).expired
    assert scheduler.queued_tokens == 0
    assert scheduler.statistics(time).running_rows == 0
    return trace


@given(plan=arrivals, workers=st.integers(1, 4), failing=st.frozensets(st.integers(0, 20), max_size=3))
def test_nothing_is_lost_and_nothing_runs_twice(plan: list[Arrival], workers: int, failing: frozenset[int]) -> None:
    trace = _simulate(plan, workers, failing)
    ends = Counter(
        id(request) for group in (trace.finished, trace.expired, trace.cancelled, trace.failed) for request in group
    )
    assert ends == Counter(id(request) for request in trace.admitted)
    runs = Counter(row for batch in trace.batches for row in _rows(batch))
    assert all(count == 1 for count in runs.values())
    for request in trace.finished:
        assert all(runs[request.payload, row] == 1 for row in range(len(request.lengths)))


@given(plan=arrivals, workers=st.integers(1, 4))
def test_no_row_starts_at_or_after_its_deadline(plan: list[Arrival], workers: int) -> None:
    for batch in _simulate(plan, workers).batches:
        assert all(batch.started < piece.queued.deadline for piece in batch.pieces)


@given(plan=arrivals, workers=st.integers(1, 4))
def test_every_row_fits_its_bucket_and_padding_is_booked(plan: list[Arrival], workers: int) -> None:
    trace = _simulate(plan, workers)
    for batch in trace.batches:
        assert batch.rows == batch.bucket.rows
        assert batch.tokens == sum(int(piece.queued.lengths[piece.rows].sum()) for piece in batch.pieces)
        assert all(piece.queued.lengths[piece.rows].max() <= batch.bucket.length for piece in batch.pieces)
        assert all(piece.queued.model == batch.model for piece in batch.pieces)
    done = {request.payload for request in trace.finished}
    padding = sum(
        len(piece.rows) * batch.bucket.length - piece.tokens
        for batch in trace.batches
        for piece in batch.pieces
        if piece.queued.payload in done
    )
    assert padding == sum(request.padded_tokens for request in trace.finished)


def _last_batch(trace: Trace, request: QueuedRows[str]) -> int:
    """Number of the batch with the request's last row."""
    return max(
        number for number, batch in enumerate(trace.batches) if any(piece.queued is request for piece in batch.pieces)
    )


@given(plan=arrivals, workers=st.integers(1, 4))
def test_waiting_is_bounded_by_the_rows_that_came_before_a_request_was_due(plan: list[Arrival], workers: int) -> None:
    """The bound of the module's docstring, for every request that was run to its end."""
    trace = _simulate(plan, workers)
    for request in trace.finished:
        own_s = 0.00100001 * sum(LADDER.lengths[level] for level in LADDER.levels(request.lengths))
        assert request.arrival <= request.due <= request.arrival + request.priority.patience_s + STRETCH * own_s
        ahead = sum(len(other.lengths) for other in trace.admitted if other.arrival <= request.due)
        assert _last_batch(trace, request) + 1 <= ahead


@given(plan=arrivals, workers=st.integers(1, 4))
def test_within_a_priority_waiting_is_bounded_by_the_rows_that_came_before(plan: list[Arrival], workers: int) -> None:
    """First come, first served: without deadlines and stretch nobody waits for a younger one of the same priority."""
    alike = [dataclasses.replace(a, timeout_s=math.inf, priority=Priority.LOW) for a in plan]
    trace = _simulate([dataclasses.replace(a, cancelled_after_s=math.inf) for a in alike], workers, stretch=0.0)
    ahead = 0
    for request in trace.admitted:
        ahead += len(request.lengths)
        assert _last_batch(trace, request) + 1 <= ahead


@given(plan=arrivals, workers=st.integers(1, 4))
def test_every_batch_has_a_row_of_the_request_that_is_due_first(plan: list[Arrival], workers: int) -> None:
    # One by one, as what arrives at the same moment may not be there yet when a batch begins.
    patient = [
        dataclasses.replace(a, after_s=max(a.after_s, 1e-6), timeout_s=math.inf, cancelled_after_s=math.inf)
        for a in plan
    ]
    trace = _simulate(patient, workers)
    left = {request.sequence: len(request.lengths) for request in trace.admitted}
    for batch in trace.batches:
        first = min(
            (request.due, request.sequence)
            for request in trace.admitted
            if left[request.sequence] and request.arrival <= batch.started
        )
        assert first in [(piece.queued.due, piece.queued.sequence) for piece in batch.pieces]
        for piece in batch.pieces:
            left[piece.queued.sequence] -= len(piece.rows)


def test_low_priority_is_served_under_a_load_of_normal_requests_that_never_ends() -> None:
    scheduler = _scheduler(queue_tokens=100_000)
    patient = _request(100, name="patient", priority=Priority.LOW)
    scheduler.admit(patient, 0.0)
    for number in range(1000):  # one worker, and always more to do than it can
        now = number * 0.1
        scheduler.admit(_request(100, name="busy", priority=Priority.NORMAL), now)
        scheduler.admit(_request(100, name="busy", priority=Priority.NORMAL), now)
        if scheduler.complete(_next(scheduler, now), now + 0.1) == [patient]:
            break
    # All that came in the 32 seconds before it was as urgent as they are goes first, nothing else does.
    assert patient.started == pytest.approx(2 * 32.0, abs=0.3)


@given(plan=arrivals, workers=st.integers(1, 4), failing=st.frozensets(st.integers(0, 20), max_size=3))
def test_the_same_calls_give_the_same_batches(plan: list[Arrival], workers: int, failing: frozenset[int]) -> None:
    assert _simulate(plan, workers, failing).log() == _simulate(plan, workers, failing).log()
