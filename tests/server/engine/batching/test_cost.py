import numpy as np
import pytest

from pairwire.server.engine import SimClock
from pairwire.server.engine.batching.buckets import Bucket, Ladder
from pairwire.server.engine.batching.cost import CostTable, confirm, measure, plausible, possible_measurements
from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.fake import FakeRuntime
from tests.server.engine import toys

LADDER = Ladder.up_to(128)


def _full(rows: int, length: int) -> TokenBatch:
    ids = np.ones((rows, length), np.int32)
    return TokenBatch(input_ids=ids, token_type_ids=ids, lengths=np.full(rows, length, np.int32))


def _timed(clock: SimClock, token_s: float) -> FakeRuntime:
    return FakeRuntime(on_run=lambda batch: clock.advance(0.001 + token_s * batch.rows * batch.length))


def test_measured_shapes_are_reproduced() -> None:
    measured = {Bucket(1, 8): 0.1, Bucket(4, 8): 0.3, Bucket(1, 128): 1.0, Bucket(4, 128): 4.0}
    table = CostTable(LADDER, measured, batch_tokens=512)
    for bucket, seconds in measured.items():
        assert table.seconds(bucket.rows, bucket.length) == pytest.approx(seconds)


def test_between_measured_shapes_costs_are_linear() -> None:
    table = toys.linear_costs(LADDER, fixed_s=0.01, token_s=0.001)
    assert table.seconds(3, 64) == pytest.approx(0.01 + 0.001 * 3 * 64)


def test_beyond_the_measured_rows_costs_grow_in_proportion() -> None:
    table = CostTable(LADDER, {Bucket(2, 8): 0.2}, batch_tokens=64)
    assert table.seconds(8, 8) == pytest.approx(0.8)
    assert table.seconds(80, 8) == pytest.approx(8.0)
    assert table.seconds(2, 16) == pytest.approx(0.4)


def test_noise_never_makes_more_work_look_cheaper() -> None:
    noisy = {Bucket(1, 8): 0.5, Bucket(4, 8): 0.2, Bucket(1, 64): 0.3, Bucket(4, 64): 0.1, Bucket(1, 128): 0.2}
    table = CostTable(LADDER, noisy, batch_tokens=512)
    costs = np.array([[table.seconds(rows, length) for length in LADDER.lengths] for rows in range(1, 65)])
    assert (np.diff(costs, axis=0) >= 0).all()
    assert (np.diff(costs, axis=1) >= 0).all()


def test_row_seconds_are_those_of_the_best_batch() -> None:
    table = toys.linear_costs(LADDER, fixed_s=0.01, token_s=0.001, batch_tokens=512)
    expected = [(0.01 + 0.001 * (512 // length) * length) / (512 // length) for length in LADDER.lengths]
    np.testing.assert_allclose(table.row_seconds(), expected)


def test_worthwhile_rows_are_fewer_where_rows_are_longer() -> None:
    table = toys.linear_costs(LADDER, fixed_s=0.01, token_s=0.001, batch_tokens=512)
    rows = [table.worthwhile_rows(length) for length in LADDER.lengths]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > 1
    assert rows[-1] == 1


def test_live_batches_correct_the_scale_but_one_stall_does_not_blow_it_up() -> None:
    table = toys.linear_costs(LADDER, fixed_s=0.01, token_s=0.001)
    before = table.seconds(2, 64)
    table.learn(2, 64, 3600.0)
    assert table.factor < 1.5
    for _ in range(300):
        table.learn(2, 64, 2 * before)
    assert table.seconds(2, 64) == pytest.approx(2 * before, rel=1e-3)
    assert table.row_seconds()[0] == pytest.approx(
        2 * toys.linear_costs(LADDER, fixed_s=0.01, token_s=0.001).row_seconds()[0], rel=1e-3
    )


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one measured shape"):
        CostTable(LADDER, {}, batch_tokens=512)


def test_measuring_finds_the_runtimes_own_costs() -> None:
    clock = SimClock()
    table = measure(_timed(clock, 1e-5), LADDER, clock, batch_tokens=512, budget_s=10, fill=_full)
    for rows, length in ((1, 8), (2, 24), (8, 64), (3, 100 // 8 * 8), (4, 128)):
        assert table.seconds(rows, length) == pytest.approx(0.001 + 1e-5 * rows * length)


def test_measuring_keeps_to_its_time() -> None:
    clock = SimClock()
    measure(_timed(clock, 1e-5), LADDER, clock, batch_tokens=512, budget_s=0.5, fill=_full)
    assert clock.monotonic() - SimClock().monotonic() <= 0.51


def test_a_slow_model_is_still_measured_on_its_longest_row() -> None:
    clock = SimClock()
    runtime = _timed(clock, 0.01)
    measure(runtime, LADDER, clock, batch_tokens=512, budget_s=0.1, fill=_full)
    lengths = {batch.length for batch in runtime.batches}
    assert lengths == {64, 128}


def test_a_clock_that_stands_still_gives_costs_above_zero() -> None:
    table = measure(FakeRuntime(), LADDER, SimClock(), batch_tokens=512, budget_s=1, fill=_full)
    assert table.seconds(1, 8) > 0
    assert (table.row_seconds() > 0).all()


def test_a_model_that_cannot_run_its_longest_row_is_refused() -> None:
    def crash(batch: TokenBatch) -> None:
        if batch.length == 128:
            raise MemoryError("no room for 128 tokens")

    with pytest.raises(MemoryError, match="128 tokens"):
        measure(FakeRuntime(on_run=crash), LADDER, SimClock(), batch_tokens=512, budget_s=1, fill=_full)


@pytest.mark.parametrize("budget_s", [1e-6, 0.1, 0.3, 10.0])
@pytest.mark.parametrize("ladder", [LADDER, Ladder.up_to(512), Ladder((8,))], ids=lambda ladder: str(len(ladder)))
def test_what_was_measured_is_one_of_the_possible_measurements(ladder: Ladder, budget_s: float) -> None:
    clock = SimClock()
    table = measure(_timed(clock, 1e-5), ladder, clock, batch_tokens=512, budget_s=budget_s, fill=_full)
    assert frozenset(table.measured) in possible_measurements(ladder, batch_tokens=512)


def test_known_costs_are_confirmed_on_the_smallest_and_the_largest_batch() -> None:
    clock = SimClock()
    known = toys.linear_costs(LADDER, fixed_s=0.001, token_s=1e-5, batch_tokens=1024)
    runtime = _timed(clock, 1e-5)
    ratio = confirm(known, runtime, LADDER, clock, batch_tokens=1024, fill=_full)
    assert ratio == pytest.approx(1)
    assert [(batch.rows, batch.length) for batch in runtime.batches] == [(1, 8), (8, 128)]


def test_one_stall_does_not_speak_against_known_costs() -> None:
    clock = SimClock()
    known = toys.linear_costs(LADDER, fixed_s=0.001, token_s=1e-5)
    stalls = iter((0.0, 1.0))
    runtime = FakeRuntime(
        on_run=lambda batch: clock.advance(next(stalls, 0.0) + 0.001 + 1e-5 * batch.rows * batch.length)
    )
    assert confirm(known, runtime, LADDER, clock, batch_tokens=512, fill=_full) == pytest.approx(1)


@pytest.mark.parametrize("token_s", [1e-3, 1e-7])
def test_costs_of_quite_another_machine_are_not_plausible(token_s: float) -> None:
    clock = SimClock()
    known = toys.linear_costs(LADDER, fixed_s=0.0, token_s=1e-5)
    runtime = FakeRuntime(on_run=lambda batch: clock.advance(token_s * batch.rows * batch.length))
    ratio = confirm(known, runtime, LADDER, clock, batch_tokens=512, fill=_full)
    assert ratio == pytest.approx(token_s / 1e-5)
    assert not plausible(ratio)
