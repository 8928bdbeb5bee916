"""Equal rows in flight, in virtual time: computed once, nothing lost, nothing twice, nobody later for following."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairwire.server.engine import Activation, Priority
from pairwire.server.engine.batching.buckets import Ladder
from pairwire.server.engine.batching.planner import OptimalCover
from pairwire.server.engine.batching.scheduler import BatchingRules, Scheduler
from pairwire.server.engine.outputs.heads import Head
from pairwire.server.engine.running.inflight import Ended, Inflight, TicketBatch
from pairwire.server.engine.running.ticket import Ticket
from pairwire.server.engine.running.written import Written
from pairwire.server.engine.text.encoder import EncodedRows
from pairwire.server.engine.text.special_tokens import SpecialTokens
from pairwire.server.errors import DeadlineExceeded, Overloaded
from pairwire.server.runtime.base import Float32Array
from tests.server.engine import toys

_LOOP = asyncio.new_event_loop()  # futures want one; nobody waits for them here
_LOOP.close()
TEMPLATE = SpecialTokens(prefix=b"", middle=b"", suffix=b"", head_types=bytes(64), tail_types=bytes(64), end_types=b"")


_BARE = Head()


class Desk:
    """Tickets over a scheduler, with rows that are named by a letter: the value of row "c" is 2, its length too."""

    def __init__(
        self, *, workers: int = 1, queue_tokens: int = 10_000, token_s: float = 1e-6, stretch: float = 0.0
    ) -> None:
        ladder = Ladder.up_to(64)
        lane = BatchingRules(ladder, toys.linear_costs(ladder, fixed_s=1e-6, token_s=token_s))
        self.inflight = Inflight(
            Scheduler({"toy": lane}, OptimalCover(), workers=workers, queue_tokens=queue_tokens, stretch=stretch),
            {"toy": ladder},
            queue_tokens=queue_tokens,
        )
        self.now = 100.0

    def ticket(
        self,
        rows: int,
        *,
        deadline: float = math.inf,
        priority: Priority = Priority.NORMAL,
        head: Head = _BARE,
        partial: bool = False,
    ) -> Ticket:
        output = np.full((rows, 1), np.nan, np.float32)
        done = _LOOP.create_future()
        return Ticket("toy", "pairs", head, output, done, deadline, priority, partial=partial)

    def submit(self, rows: str, **options: object) -> Ticket:
        ticket = self.ticket(len(rows), **options)  # type: ignore[arg-type]  # handed through
        self.inflight.submit(ticket, encoded(rows), np.arange(len(rows), dtype=np.int32), self.now)
        return ticket

    def begin(self) -> TicketBatch:
        batch, ended = self.inflight.next_batch(self.now)
        assert batch is not None
        assert ended == Ended()
        return batch

    def end(self, batch: TicketBatch) -> Ended:
        values = values_of(batch)
        write(batch, values)
        return self.inflight.complete(batch, Written(values), self.now)

    def rest(self) -> list[str]:
        """Runs everything that waits; the rows that were run, batch by batch."""
        ran = []
        while True:
            batch, ended = self.inflight.next_batch(self.now)
            assert ended == Ended()
            if batch is None:
                return ran
            ran.append(rows_of(batch))
            self.end(batch)


def encoded(rows: str) -> EncodedRows:
    ids = [(np.full(_index(row) + 1, _index(row), np.int32).tobytes(), 0, 0) for row in rows]
    lengths = np.array([_index(row) + 1 for row in rows], np.int32)
    return EncodedRows(TEMPLATE, ids, lengths, np.zeros(0, np.int32))


def _index(row: str) -> int:
    return ord(row) - ord("a")


def rows_of(batch: TicketBatch) -> str:
    return "".join(
        chr(ord("a") + int(np.frombuffer(piece.queued.payload.encoded.rows[row][0], np.int32)[0]))
        for piece in batch.pieces
        for row in piece.rows.tolist()
    )


def values_of(batch: TicketBatch) -> Float32Array:
    return np.array([[_index(row)] for row in rows_of(batch)], np.float32)


def write(batch: TicketBatch, values: Float32Array) -> None:
    """What a worker does."""
    at = 0
    for piece in batch.pieces:
        part = piece.queued.payload
        part.ticket.output[part.at[piece.rows]] = values[at : at + len(piece.rows)]
        at += len(piece.rows)


def scores(ticket: Ticket) -> list[float]:
    return [float(value) for value in ticket.output[:, 0]]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_equal_rows_of_one_ticket_are_computed_once(desk: Desk) -> None:
    ticket = desk.submit("cacca")
    assert sorted("".join(desk.rest())) == ["a", "c"]
    assert scores(ticket) == [2, 0, 2, 2, 0]
    assert not ticket.open
    assert desk.inflight.shared_rows() == {"toy": 3}


def test_equal_rows_of_tickets_in_flight_are_computed_once(desk: Desk) -> None:
    first, second, third = desk.submit("ab"), desk.submit("bc"), desk.submit("b")
    assert sorted("".join(desk.rest())) == ["a", "b", "c"]
    assert [scores(each) for each in (first, second, third)] == [[0, 1], [1, 2], [1]]
    assert (second.padded_tokens > 0, third.padded_tokens) == (True, 0)


def test_a_row_that_is_running_is_followed_too_and_one_that_ended_is_not(desk: Desk) -> None:
    first = desk.submit("a")
    batch = desk.begin()
    desk.now += 1
    second = desk.submit("a", deadline=desk.now + 5)
    desk.now += 1
    assert desk.end(batch).finished == [first, second]
    assert (second.started - second.arrival, second.finished - second.started) == (0, 1)
    desk.submit("a")
    assert desk.rest() == ["a"]


def test_no_time_runs_backwards_for_who_follows_what_has_just_ended(desk: Desk) -> None:
    desk.submit("a")
    batch = desk.begin()
    ended_at = desk.now + 1
    desk.now += 2
    late = desk.submit("a")
    values = values_of(batch)
    write(batch, values)
    desk.inflight.complete(batch, Written(values), ended_at)
    assert (late.arrival, late.started, late.finished) == (desk.now, desk.now, desk.now)


def test_each_follower_gets_its_own_activation(desk: Desk) -> None:
    raw = desk.submit("c")
    activated = desk.submit("c", head=Head(Activation.SIGMOID))
    desk.rest()
    assert scores(raw) == [2]
    assert scores(activated) == [pytest.approx(1 / (1 + math.exp(-2)))]


@pytest.mark.parametrize("hurry", [{"deadline": 110.0}, {"priority": Priority.HIGH}])
def test_who_is_in_more_of_a_hurry_does_not_wait_for_an_owner(hurry: dict[str, object], desk: Desk) -> None:
    owner = desk.submit("b", deadline=120.0)
    hasty = desk.submit("b", **hurry)
    patient = desk.submit("b", deadline=130.0)
    assert desk.rest() == ["bb"]
    assert [scores(each) for each in (owner, hasty, patient)] == [[1], [1], [1]]


def test_a_small_request_does_not_wait_for_a_large_one_that_gives_way_to_it() -> None:
    desk = Desk(token_s=0.1, stretch=4.0)
    large = desk.submit("abcdefghijkl")
    small = desk.submit("l")
    again = desk.submit("l")
    assert sorted("".join(desk.rest())) == sorted("abcdefghijkl" + "ll")
    assert (scores(large)[-1], scores(small), scores(again)) == (11, [11], [11])


def test_when_a_waiting_owner_leaves_its_most_urgent_follower_inherits(desk: Desk) -> None:
    owner = desk.submit("abc", deadline=120.0)
    desk.submit("d")
    late = desk.submit("bc", deadline=140.0)
    early = desk.submit("b", deadline=130.0)
    ended = desk.inflight.cancel(owner, desk.now)
    assert ended.requeued == 2
    assert sorted("".join(desk.rest())) == ["b", "c", "d"]
    assert (scores(late), scores(early)) == ([1, 2], [1])
    assert early.padded_tokens > 0


def test_when_a_running_owner_leaves_its_followers_keep_what_runs(desk: Desk) -> None:
    owner = desk.submit("b")
    batch = desk.begin()
    follower = desk.submit("b")
    assert desk.inflight.cancel(owner, desk.now) == Ended()
    latecomer = desk.submit("b")
    assert desk.end(batch).finished == [follower, latecomer]
    assert scores(follower) == [1]
    assert desk.rest() == []


def test_a_follower_that_leaves_disturbs_nobody(desk: Desk) -> None:
    owner, follower, other = desk.submit("b"), desk.submit("b"), desk.submit("b")
    desk.inflight.cancel(follower, desk.now)
    assert desk.rest() == ["b"]
    assert (scores(owner), scores(other)) == ([1], [1])
    assert math.isnan(scores(follower)[0])


def test_when_an_owner_expires_its_followers_are_run(desk: Desk) -> None:
    owner = desk.submit("b", deadline=desk.now + 1)
    follower = desk.submit("b", deadline=desk.now + 10)
    desk.now += 2
    batch, ended = desk.inflight.next_batch(desk.now)
    assert ended.expired == [owner]
    assert batch is not None
    desk.end(batch)
    assert scores(follower) == [1]


def test_a_follower_that_can_no_longer_be_served_in_time_is_told_at_once() -> None:
    desk = Desk(token_s=1.0)
    owner = desk.submit("z", deadline=desk.now + 100)
    follower = desk.submit("z", deadline=desk.now + 100)
    third = desk.submit("z")
    desk.now += 99
    ended = desk.inflight.cancel(owner, desk.now)
    ((refused, error),) = ended.refused
    assert refused is follower
    assert isinstance(error, DeadlineExceeded)
    assert desk.rest() == ["z"]
    assert scores(third) == [25]


def test_of_a_partial_ticket_only_what_is_late_is_lost(desk: Desk) -> None:
    ticket = desk.ticket(3, deadline=desk.now + 1, partial=True)
    desk.inflight.submit(ticket, encoded("a"), np.array([0], np.int32), desk.now)
    batch = desk.begin()
    for at, row in ((1, "y"), (2, "z")):
        desk.inflight.submit(ticket, encoded(row), np.array([at], np.int32), desk.now)
    follower = desk.submit("z", deadline=desk.now + 10)
    desk.now += 2
    next_batch, ended = desk.inflight.next_batch(desk.now)
    assert ended == Ended(requeued=1)
    assert desk.end(batch).finished == [ticket]
    assert [scores(ticket)[0], *map(math.isnan, scores(ticket)[1:])] == [0, True, True]
    assert next_batch is not None
    desk.end(next_batch)
    assert scores(follower) == [25]


def test_a_partial_ticket_may_do_without_rows_that_never_came(desk: Desk) -> None:
    ticket = desk.ticket(3, partial=True)
    desk.inflight.submit(ticket, encoded("a"), np.array([0], np.int32), desk.now)
    assert desk.inflight.forgo(ticket, 2) == Ended()
    desk.rest()
    assert not ticket.open
    assert scores(ticket)[0] == 0
    assert desk.inflight.forgo(ticket, 2) == Ended()
    empty = desk.ticket(3, partial=True)
    assert desk.inflight.forgo(empty, 3).finished == [empty]


def test_when_a_batch_fails_so_do_all_who_wait_for_its_rows(desk: Desk) -> None:
    owner, follower, other = desk.submit("ab"), desk.submit("bc"), desk.submit("d")
    batch = desk.begin()
    ran = rows_of(batch)
    ended = desk.inflight.fail(batch, desk.now)
    expected = [ticket for ticket, rows in ((owner, "ab"), (follower, "bc"), (other, "d")) if set(rows) & set(ran)]
    assert {id(each) for each in ended.failed} == {id(each) for each in expected}
    desk.rest()
    assert desk.inflight.cancel_all() == []


def test_a_value_that_is_not_finite_fails_those_who_wait_for_it_and_no_other(desk: Desk) -> None:
    owner, follower, other = desk.submit("a"), desk.submit("a"), desk.submit("b")
    while (batch := desk.inflight.next_batch(desk.now)[0]) is not None:
        values = np.where(values_of(batch) == 0, np.nan, values_of(batch)).astype(np.float32)
        write(batch, values)
        ended = desk.inflight.complete(batch, Written(values), desk.now)
        assert set(ended.failed) <= {owner, follower}
    assert (owner.open, follower.open, scores(other)) == (False, False, [1])
    assert desk.inflight.cancel_all() == []


def test_what_is_refused_leaves_no_trace() -> None:
    desk = Desk(queue_tokens=10)
    first = desk.submit("h")
    with pytest.raises(Overloaded):
        desk.submit("hg")
    follower = desk.submit("h")
    assert desk.rest() == ["h"]
    assert (scores(first), scores(follower)) == ([7], [7])
    assert desk.inflight.cancel_all() == []


def test_rows_of_a_ticket_may_come_in_parts(desk: Desk) -> None:
    ticket = desk.ticket(3)
    desk.inflight.submit(ticket, encoded("ab"), np.array([2, 0], np.int32), desk.now)
    desk.rest()
    assert ticket.open
    desk.inflight.submit(ticket, encoded("c"), np.array([1], np.int32), desk.now)
    desk.rest()
    assert scores(ticket) == [1, 2, 0]
    assert not ticket.open


def test_closing_hands_back_every_ticket(desk: Desk) -> None:
    tickets = [desk.submit("ab"), desk.submit("b"), desk.submit("c")]
    batch = desk.begin()
    assert desk.inflight.cancel_all() == tickets
    assert desk.end(batch) == Ended()
    assert desk.inflight.cancel_all() == []


Step = tuple[str, str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit", "begin", "end", "fail", "cancel", "cancel", "wait", "more"]),
        st.text("abz", min_size=1, max_size=4),
        st.integers(0, 1000),
    ),
    min_size=5,
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(
    steps=steps,
    workers=st.integers(1, 3),
    queue_tokens=st.sampled_from([40, 10_000]),
    stretch=st.sampled_from([0.0, 4.0]),
)
def test_nothing_is_lost_nothing_is_answered_twice_and_every_value_is_right(
    steps: Sequence[Step], workers: int, queue_tokens: int, stretch: float
) -> None:
    desk = Desk(workers=workers, queue_tokens=queue_tokens, stretch=stretch)
    asked: dict[Ticket, str] = {}
    promised: dict[Ticket, str] = {}
    outcomes: Counter[Ticket] = Counter()
    running: list[TicketBatch] = []

    def note(ended: Ended) -> None:
        for ticket in ended.finished:
            found, expected = scores(ticket), [_index(row) for row in asked[ticket]]
            assert ticket.partial or len(found) == len(expected)
            for each, value in zip(found, expected, strict=False):
                assert each == value or (ticket.partial and math.isnan(each))
        assert not any(ticket.partial for ticket in [*ended.expired, *(ticket for ticket, _ in ended.refused)])
        outcomes.update([*ended.finished, *ended.failed, *ended.expired, *(ticket for ticket, _ in ended.refused)])

    def begin() -> bool:
        batch, ended = desk.inflight.next_batch(desk.now)
        note(ended)
        for piece in batch.pieces if batch else ():
            assert piece.queued.payload.ticket.deadline > desk.now
            assert piece.queued.payload.ticket.open
        running.extend([batch] if batch else [])
        return batch is not None

    def submit(ticket: Ticket, rows: str) -> None:
        at = np.arange(len(asked[ticket]), len(asked[ticket]) + len(rows), dtype=np.int32)
        try:
            desk.inflight.submit(ticket, encoded(rows), at, desk.now)
        except (Overloaded, DeadlineExceeded):
            if ticket.partial:
                note(desk.inflight.forgo(ticket, len(ticket.output) - len(asked[ticket])))
            elif asked[ticket]:  # a later part: the engine gives the whole ticket up
                note(desk.inflight.cancel(ticket, desk.now))
                outcomes[ticket] += 1
            else:
                del asked[ticket]
            promised.pop(ticket, None)
        else:
            asked[ticket] += rows

    for action, rows, number in steps:
        pick = random.Random(number)
        if action in ("submit", "more"):
            now_rows, later = (rows, "") if action == "submit" else (rows[: len(rows) // 2], rows[len(rows) // 2 :])
            ticket = desk.ticket(
                len(rows),
                deadline=desk.now + pick.choice([2, 5, math.inf]),
                priority=pick.choice([Priority.NORMAL, Priority.NORMAL, Priority.HIGH]),
                partial=pick.random() < 0.4,
            )
            asked[ticket] = ""
            if now_rows:
                submit(ticket, now_rows)
            if later and ticket in asked:
                promised[ticket] = later
        elif action == "begin" and len(running) < workers:
            begin()
        elif action == "end" and running:
            note(desk.end(running.pop(pick.randrange(len(running)))))
        elif action == "fail" and running:
            note(desk.inflight.fail(running.pop(pick.randrange(len(running))), desk.now))
        elif action == "cancel" and any(ticket.open for ticket in asked):
            ticket = pick.choice([ticket for ticket in asked if ticket.open])
            note(desk.inflight.cancel(ticket, desk.now))
            outcomes[ticket] += 1
        elif action == "wait":
            desk.now += 1
        for ticket in [ticket for ticket in promised if pick.random() < 0.3]:
            submit(ticket, promised.pop(ticket))
    for ticket, rows in list(promised.items()):
        submit(ticket, rows)
    while running or begin():
        note(desk.end(running.pop()))
    # Followers alone in flight whose deadline has passed are told by the engine's own timeout.
    assert all(outcomes[ticket] == 1 for ticket in asked)
    assert not any(ticket.open or ticket.parts for ticket in asked)
    assert desk.inflight.cancel_all() == []
    statistics = desk.inflight.statistics(desk.now)
    assert (statistics.queued_rows, statistics.queued_tokens, statistics.running_rows) == (0, 0, 0)


@settings(deadline=None)
@given(
    requests=st.lists(st.text("abcdefz", min_size=1, max_size=8), min_size=1, max_size=12), workers=st.integers(1, 3)
)
def test_where_all_are_alike_in_hurry_each_row_in_flight_runs_once(requests: Sequence[str], workers: int) -> None:
    desk = Desk(workers=workers)
    tickets = [desk.submit(rows) for rows in requests]
    assert Counter("".join(desk.rest())) == Counter(set("".join(requests)))
    assert [scores(ticket) for ticket in tickets] == [[_index(row) for row in rows] for rows in requests]
