from __future__ import annotations

import numpy as np
import pytest

from pairwire.export import coding
from pairwire.export.calibrate import Seen

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
    found = coding.code(x.min(axis=0), x.max(axis=0), divisors, np.array([1]))
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
    (_, dear), (error, cheap) = (coding._errors(each, weights, None, coding._NONE) for each in (wild, calm))
    assert np.hypot(error, dear) > 5 * np.hypot(error, cheap)


def test_both_rewrites_meet_where_outputs_are_a_few_times_the_inputs() -> None:
    x = RNG.normal(size=(400, 32)) * np.where(np.arange(32) == 5, 60, 1)
    weights = RNG.normal(size=(32, 96)).astype(np.float32)
    chosen = coding.choose(seen(x), weights)
    assert 5 in chosen.coding.apart
    assert chosen.coding.divisors is not None
    wide = coding.choose(seen(x), np.concatenate([weights, weights], axis=1))
    assert not len(wide.coding.apart)
