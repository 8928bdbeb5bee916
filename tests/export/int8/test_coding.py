from __future__ import annotations

import numpy as np
import pytest

from pairwire.export.int8 import coding
from pairwire.export.int8.calibrate import Seen

RNG = np.random.default_rng(0)


def seen(x: np.ndarray) -> Seen:
    """As if half of the rows came from one half of the texts."""
    halves = tuple(half.astype(np.float32) for half in np.split(x, 2))
    low, high = (np.stack([reduce(half, axis=0) for half in halves]) for reduce in (np.min, np.max))
    return Seen(low, high, halves)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-0.17, 25.0)])
def test_activation_range_covers_its_ends_and_zero(low: float, high: float) -> None:
    scale, zero = coding.activation_scale(low, high)
    steps = np.arange(256, dtype=np.float64) - int(zero)
    assert 0.0 in steps * scale
    assert np.abs(steps * scale - low).min() <= scale
    assert np.abs(steps * scale - high).min() <= scale


def test_balance_makes_large_channels_smaller_and_keeps_the_product() -> None:
    x = RNG.normal(size=(50, 6)) * np.array([1, 1, 1, 1, 1, 40])
    weights = RNG.normal(size=(6, 3)).astype(np.float32)
    divisors = coding.balance(np.abs(x).max(axis=0).astype(np.float32), weights, 0.75, 0.0)
    assert np.ptp(np.abs(x / divisors).max(axis=0)) < np.ptp(np.abs(x).max(axis=0)) / 5
    np.testing.assert_allclose((x / divisors) @ (weights * divisors[:, None]), x @ weights, rtol=1e-5)
    assert np.exp(np.log(divisors).mean()) == pytest.approx(1, rel=1e-5)


def test_small_channels_count_as_larger_where_a_floor_is_asked_for() -> None:
    largest = np.array([0.01, 1, 2, 4, 40], dtype=np.float32)
    divisors = coding.balance(largest, np.ones((5, 2), np.float32), 1.0, 0.5)
    np.testing.assert_allclose(divisors[[1, 2, 3, 4]] / divisors[0], [1, 1, 2, 20], rtol=1e-5)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        ([1, 1, 20, 1, 1, 1, 1, 1, 1, 1], [2]),
        ([9, 1, 20, 1, 1, 1, 1, 1, 1, 1], [0, 2]),
        ([1.0] * 10, []),
        ([1.2, 1.1, 1.0, 1.05, 1.3, 1, 1, 1, 1, 1], []),
        ([20.0] * 9 + [1.0], []),
    ],
)
def test_few_outliers_are_set_apart_and_many_are_not(largest: list[float], expected: list[int]) -> None:
    assert coding.outliers(np.array(largest, dtype=np.float32)).tolist() == expected


def test_codes_stand_for_their_values_up_to_half_a_step() -> None:
    x = RNG.normal(size=(40, 4)).astype(np.float32)
    divisors = np.array([1, 2, 4, 0.5], np.float32)
    found = coding.Way(None, divisors, np.array([1])).code(x.min(axis=0), x.max(axis=0), x.mean(axis=0))
    values = found.decoded(x)
    assert not values[:, 1].any()
    kept = [0, 2, 3]
    assert np.abs(values[:, kept] - (x / divisors)[:, kept]).max() <= float(
        found.scale
    )  # at the ends; half of it between
    assert np.abs(values[:, kept] - (x / divisors)[:, kept]).mean() < float(found.scale) * 0.27
    assert not found.weights(np.ones((4, 3), np.float32))[1].any()


@pytest.mark.parametrize(("outputs", "share"), [(3, 0.1), (8, 0.8), (32, 0.8)])
def test_a_large_channel_is_balanced_or_set_apart_and_the_error_falls(outputs: int, share: float) -> None:
    x = RNG.normal(size=(400, 8)) * np.array([1, 1, 60, 1, 1, 1, 1, 1])
    chosen = coding.choose(seen(x), RNG.normal(size=(8, outputs)).astype(np.float32))
    assert chosen.error < share * chosen.plain
    assert (chosen.coding.divisors is None) == (outputs < 8)
    assert chosen.coding.apart.tolist() == ([2] if outputs < 8 else [])


def test_a_code_that_cuts_the_other_half_s_values_pays_for_it() -> None:
    x = RNG.uniform(-1, 1, size=(400, 8)).astype(np.float32)
    calm, wild = seen(x), seen(x)
    wild.high[1, 0] = 30  # once, on texts of the second half
    weights = np.ones((8, 4), np.float32)
    (_, dear), (error, cheap) = (
        coding._errors(each, weights, coding.Way(), coding._trials(each, weights)) for each in (wild, calm)
    )
    assert np.hypot(error, dear) > 5 * np.hypot(error, cheap)


def test_a_centred_code_spends_no_steps_on_what_a_channel_always_is() -> None:
    x = (RNG.normal(size=(60, 4)) + np.array([0, 50, -20, 3])).astype(np.float32)
    low, high, mean = x.min(axis=0), x.max(axis=0), x.mean(axis=0)
    divisors = np.array([1, 2, 1, 1], np.float32)
    centred, plain = (coding.Way(0.5, divisors, centred=each).code(low, high, mean) for each in (True, False))
    assert centred.scale < plain.scale / 7
    assert centred.centre is not None
    exact = (x - centred.centre) / divisors
    assert np.abs(centred.decoded(x) - exact).max() <= float(centred.scale)
    bottom, top = centred.reach()
    assert (bottom <= low + centred.scale * divisors).all()
    assert (top >= high - centred.scale * divisors).all()


def test_with_a_scale_for_each_token_nothing_is_cut_off_and_no_token_changes_another() -> None:
    x = RNG.normal(size=(40, 8)).astype(np.float32) * np.geomspace(1e-3, 1e5, 40, dtype=np.float32)[:, None]
    found = coding.Way(by_token=True).code(x[:20].min(axis=0), x[:20].max(axis=0), x[:20].mean(axis=0))
    steps = np.abs(x).max(axis=1, keepdims=True) / 127
    assert (np.abs(found.decoded(x) - x) <= steps * 0.501).all()
    np.testing.assert_array_equal(found.decoded(x)[5:6], found.decoded(x[5:6]))
    assert coding._lost(found, x.min(axis=0), x.max(axis=0), np.ones((8, 3), np.float32)) == 0
    assert not found.decoded(np.zeros((1, 8), np.float32)).any()


def test_a_way_costs_what_it_reads_and_multiplies() -> None:
    apart = [coding.Way(apart=np.array(each)) for each in ([4, 5, 6], [4, 5, 9], [4, 5, 6, 7])]
    one_slice, scattered, longer = (way.price(1536, 384) for way in apart)
    assert 0 < one_slice < longer < scattered
    balanced = coding.Way(0.5, np.ones(384, np.float32))
    prices = [balanced.price(384, 1536), coding.Way(by_token=True).price(384, 1536)]
    assert coding.Way().price(384, 1536) == 0 < prices[0] < prices[1]
    assert balanced.price(4096, 4096) < balanced.price(384, 384) / 5  # large products hide it


@pytest.mark.parametrize(("thrift", "by_token"), [(0.0, True), (0.2, True), (200.0, False)])
def test_tokens_of_many_sizes_get_a_scale_each_unless_time_counts_for_more(thrift: float, by_token: bool) -> None:
    x = RNG.normal(size=(400, 64)) * np.geomspace(0.01, 1, 400)[RNG.permutation(400), None]
    chosen = coding.choose(seen(x), RNG.normal(size=(64, 256)).astype(np.float32), thrift=thrift)
    assert chosen.coding.by_token == by_token
    assert (chosen.error < chosen.plain) == by_token


def test_channels_that_are_always_large_are_centred() -> None:
    x = RNG.normal(size=(400, 64)) + np.where(np.arange(64) % 16 == 3, 30, 0)
    chosen = coding.choose(seen(x), RNG.normal(size=(64, 256)).astype(np.float32))
    assert chosen.coding.centre is not None
    assert chosen.coding.centre[3] > 25
    assert chosen.error < chosen.plain / 2


def test_many_channels_are_set_apart_only_where_they_are_one_slice() -> None:
    sizes = np.where(np.arange(512) < 488, 1, 30)
    weights = RNG.normal(size=(512, 64)).astype(np.float32)
    x = RNG.normal(size=(400, 512)) * sizes
    together = coding.choose(seen(x), weights, thrift=0.0).coding.apart
    assert together.tolist() in (list(range(488, 512)), list(range(480, 512)))
    assert coding.side_by_side(together)
    mixed = RNG.permutation(512)
    assert len(coding.choose(seen(x[:, mixed]), weights[mixed], thrift=0.0).coding.apart) <= coding.FEW_APART


def test_both_rewrites_meet_where_outputs_are_a_few_times_the_inputs() -> None:
    x = RNG.normal(size=(400, 32)) * np.where(np.arange(32) == 5, 60, 1)
    weights = RNG.normal(size=(32, 96)).astype(np.float32)
    chosen = coding.choose(seen(x), weights)
    assert 5 in chosen.coding.apart
    assert chosen.coding.divisors is not None
    wide = coding.choose(seen(x), np.concatenate([weights, weights], axis=1))
    assert not len(wide.coding.apart)
