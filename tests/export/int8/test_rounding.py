from __future__ import annotations

import numpy as np
import pytest

from pairwire.export.int8 import rounding

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


WEIGHTS = RNG.normal(size=(200, 16)).astype(np.float32)


def test_weights_are_off_by_at_most_half_a_step() -> None:
    small, scales = rounding.quantize_weights(WEIGHTS)
    assert small.dtype == np.int8
    assert np.abs(small * scales - WEIGHTS).max() <= scales.max() / 2 + 1e-7


def test_column_of_zeros_stays_zero() -> None:
    small, scales = rounding.quantize_weights(np.zeros((4, 2), np.float32))
    assert not small.any()
    assert np.isfinite(scales).all()


def test_products_of_inputs_as_they_are_seen_err_less_than_by_nearest_rounding() -> None:
    inputs = RNG.normal(size=(500, 200)).astype(np.float32) + 5 * RNG.normal(size=200).astype(np.float32)
    inputs[:, 7] += 100  # always large, as a few channels of a transformer are
    before = WEIGHTS.copy()
    small, scales = rounding.round_weights(WEIGHTS, inputs)
    nearest, _ = rounding.quantize_weights(WEIGHTS)
    error, plain = (np.abs(inputs @ (values * scales) - inputs @ WEIGHTS).mean() for values in (small, nearest))
    assert error < plain / 3
    assert np.abs(small * scales - WEIGHTS).max() < 4 * scales.max()
    np.testing.assert_array_equal(WEIGHTS, before)


def test_rounding_is_the_same_every_time() -> None:
    inputs = RNG.normal(size=(50, 200)).astype(np.float32)
    first, second = (rounding.round_weights(WEIGHTS, inputs)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("most", "samples"), [(rounding.MOST_INPUTS, 300), (100, 500)])
def test_too_few_samples_or_too_many_inputs_are_rounded_to_the_nearest(
    monkeypatch: pytest.MonkeyPatch, most: int, samples: int
) -> None:
    monkeypatch.setattr(rounding, "MOST_INPUTS", most)
    inputs = 1 + RNG.normal(size=(samples, 200)).astype(np.float32)
    np.testing.assert_array_equal(rounding.round_weights(WEIGHTS, inputs)[0], rounding.quantize_weights(WEIGHTS)[0])
