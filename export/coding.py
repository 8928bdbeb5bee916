"""How a tensor becomes uint8 with constant ranges, and which way of it errs least.

One scale and one zero point hold for the whole tensor, but a few channels of a transformer are ten times larger than
the rest and would leave those with a handful of steps. Two exact rewrites of ``x W`` take care of them:

    balance     x -> x / d, W -> d W: large channels shrink, their weights grow (as SmoothQuant does)
    set apart   up to 8 channels are multiplied in float32 beside the int8 product: x W = x' W' + x[o] W[o]

`choose` tries the one that is cheap for the tensor on sampled tokens, in several strengths, and takes what puts the
smallest error on the product's output, rounding of the weights included. Ranges of one half of the texts are tried on
the other half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairwire.server.runtime.base import Float32Array

from .calibrate import Seen
from .rounding import quantize_weights

MIGRATIONS = (0.5, 0.65, 0.75, 0.85)
"""Shares of a channel's size that go into the weights: d = size ** share / weight size ** (1 - share)."""
FLOOR = 0.75
"""The channels in this share of the tensor, from the smallest up, count as large as the largest of them: what was small
on the calibration texts may be large in others, and would be cut off."""
RARE = 0.1
"""Weight of what is cut off in the worst case beside what rounding does to every token."""
TRIED_TOKENS = 512
"""About so many tokens of each half are tried."""
MOST_APART = 8
"""Channels of a tensor that may be set apart."""
BOTH_BELOW = 4
"""Outputs for each input below which channels may be set apart beside a balanced tensor: adding more takes too long."""
OUTLIER = 1.5
"""A channel is set apart where it is so many times larger than the largest that would stay."""
STEPS = 255

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coding:
    """uint8 code of a tensor [..., channels]: round(x / divisors / scale) + zero, cut to 0 .. 255."""

    divisors: Float32Array | None
    """[channels]; None for all ones."""
    apart: Indices
    """Ascending; channels that the int8 product leaves out."""
    scale: np.float32
    zero: np.uint8

    def decoded(self, x: Float32Array) -> Float32Array:
        """What the codes of ``x`` [tokens, channels] stand for, divided; 0 for what is set apart."""
        divided = x if self.divisors is None else x / self.divisors
        codes = np.clip(np.rint(divided / self.scale) + np.float32(self.zero), 0, STEPS) - np.float32(self.zero)
        values = np.asarray(codes * self.scale, dtype=np.float32)
        values[:, self.apart] = 0
        return values

    def weights(self, weights: Float32Array) -> Float32Array:
        """``weights`` [channels, outputs] as the int8 product takes them: multiplied, and 0 for what is set apart."""
        taken = weights.copy() if self.divisors is None else weights * self.divisors[:, None]
        taken[self.apart] = 0
        return taken

    def reach(self) -> tuple[Float32Array, Float32Array]:
        """Smallest and largest value of each channel that is not cut; single numbers where nothing is divided."""
        divisors = np.float32(1) if self.divisors is None else self.divisors
        bottom = -np.float32(self.zero) * self.scale
        return np.asarray(bottom * divisors), np.asarray((bottom + STEPS * self.scale) * divisors)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The code of a tensor, and the error of the product's output relative to its deviation on unseen texts."""

    coding: Coding
    error: float
    plain: float
    """The same of the plain code: smallest to largest value, nothing balanced or set apart."""
    exponent: float | None
    """One of ``MIGRATIONS``; None where nothing is balanced."""


def choose(seen: Seen, weights: Float32Array) -> Chosen:
    """The best code of a tensor that is multiplied by ``weights`` [channels, outputs]."""
    spread = max(float((seen.sample @ weights).std(axis=0).mean()), 1e-12)
    ways = [(None, None, _NONE), *_ways(seen, weights)]
    parts = [_errors(seen, weights, *way[1:]) for way in ways]
    best = int(np.argmin([np.hypot(*part) for part in parts]))
    coding = code(seen.low.min(axis=0), seen.high.max(axis=0), *ways[best][1:])
    return Chosen(coding, parts[best][0] / spread, parts[0][0] / spread, ways[best][0])


def code(low: Float32Array, high: Float32Array, divisors: Float32Array | None, apart: Indices) -> Coding:
    """For channels [channels] from ``low`` to ``high``."""
    low, high = (bound if divisors is None else bound / divisors for bound in (low, high))
    scale, zero = activation_scale(float(np.delete(low, apart).min()), float(np.delete(high, apart).max()))
    return Coding(divisors, apart, scale, zero)


def activation_scale(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that spread uint8 over [low, high], widened so that 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-12) / STEPS
    return np.float32(scale), np.uint8(np.clip(np.ceil(-low / scale - 0.01), 0, STEPS))


def balance(largest: Float32Array, weights: Float32Array, migration: float, floor: float) -> Float32Array:
    """Divisors [inputs] of the channels, with geometric mean 1; rows of ``weights`` [inputs, outputs] take them."""
    size = np.maximum(largest.astype(np.float64), max(float(np.quantile(largest, floor)), 1e-4))
    weight = np.maximum(np.abs(weights).max(axis=1).astype(np.float64), 1e-6)
    divisors = size**migration / weight ** (1 - migration)
    return np.asarray(divisors / np.exp(np.log(divisors).mean()), dtype=np.float32)


def outliers(largest: Float32Array) -> Indices:
    """Ascending indices of the channels to set apart: those that are ``OUTLIER`` times larger than what stays."""
    order = np.argsort(-largest, kind="stable")
    sizes = largest[order]
    count = 0
    for at in range(min(MOST_APART, len(sizes) - 1)):
        if sizes[at] > OUTLIER * sizes[at + 1] or sizes[at] > OUTLIER * sizes[min(MOST_APART, len(sizes) - 1)]:
            count = at + 1
    return np.sort(order[:count]).astype(np.int64)


def _ways(seen: Seen, weights: Float32Array) -> Iterator[tuple[float | None, Float32Array | None, Indices]]:
    """(exponent, divisors, channels apart). Scaling is the cheaper rewrite where no less comes out than goes in."""
    largest = np.maximum(np.abs(seen.low), np.abs(seen.high)).max(axis=0)
    inputs, outputs = weights.shape
    largest_ones = np.sort(np.argsort(-largest, kind="stable")[: min(MOST_APART, inputs // 16)])
    if inputs <= outputs:
        for migration in MIGRATIONS:
            yield migration, balance(largest, weights, migration, FLOOR if inputs == outputs else 0.0), _NONE
            if inputs < outputs < BOTH_BELOW * inputs:
                rest = np.delete(np.arange(inputs), largest_ones)
                divisors = np.ones(inputs, np.float32)
                divisors[rest] = balance(largest[rest], weights[rest], migration, 0.0)
                yield migration, divisors, largest_ones
    else:
        yield None, None, outliers(largest)
        yield None, None, largest_ones
    yield None, None, _NONE


def _errors(seen: Seen, weights: Float32Array, divisors: Float32Array | None, apart: Indices) -> tuple[float, float]:
    """Root mean square of the output's error, and the price of what would be cut off.

    Codes of each half's ranges on the other half's tokens.
    """
    squares = []
    for half, x in enumerate(seen.samples):
        x = x[:: max(1, len(x) // TRIED_TOKENS)]
        coding = code(seen.low[1 - half], seen.high[1 - half], divisors, apart)
        small, scales = quantize_weights(coding.weights(weights))
        off = coding.decoded(x) @ (small * scales) + x[:, apart] @ weights[apart] - x @ weights
        lost = RARE * _lost(coding, seen.low[half], seen.high[half], weights)
        squares.append((float(((off - off.mean(axis=0)) ** 2).mean()), lost**2))  # the mean goes into the bias
    error, price = np.sqrt(np.mean(squares, axis=0))
    return float(error), float(price)


def _lost(coding: Coding, low: Float32Array, high: Float32Array, weights: Float32Array) -> float:
    """Root mean square of the output's error at a token that has every channel at its worst."""
    bottom, top = coding.reach()
    beyond = np.maximum(np.maximum(high - top, bottom - low), 0)
    beyond[coding.apart] = 0
    return float(np.sqrt(((beyond[:, None] * weights) ** 2).sum(axis=0).mean()))


_NONE: Indices = np.zeros(0, dtype=np.int64)
