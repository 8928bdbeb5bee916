"""How a tensor becomes uint8 with constant ranges, and which way of it errs least.

One scale and one zero point hold for the whole tensor, but a few channels of a transformer are ten times larger than
the rest and would leave those with a handful of steps, and so would a few tokens. Exact rewrites of ``x W`` take care
of them:

    balance     x -> x / d, W -> d W: large channels shrink, their weights grow (as SmoothQuant does)
    centre      x -> x - c, and c W goes into the bias: a channel that is always large has nothing special then
    by token    x -> x / max |x|, and the product is multiplied by it: each token has its own scale, and nothing is
                cut off, whatever else the batch holds
    set apart   some channels are multiplied in float32 next to the int8 product: x W = x' W' + x[o] W[o]

`choose` tries those that are cheap for the tensor on sampled tokens, in several strengths, and takes what puts the
smallest error on the product's output, rounding of the weights included, with a price on the time it takes. Ranges of
one half of the texts are tried on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pairwire.server.runtime.base import Float32Array

from .calibrate import Seen
from .products import Indices
from .rounding import quantize_weights

MIGRATIONS = (0.5, 0.65, 0.75, 0.85)
"""Shares of a channel's size that go into the weights: d = size ** share / weight size ** (1 - share)."""
FLOOR = 0.75
"""The channels in this share of the tensor, from the smallest up, count as large as the largest of them: what was small
on the calibration texts may be large in others, and would be cut off."""
RARE = 0.1
"""Weight of what is cut off in the worst case against what rounding does to every token."""
TRIED_TOKENS = 512
"""About this many tokens of each half are tried."""
TRIED_OUTPUTS = 768
"""At most about this many outputs of a tensor's products are computed to compare ways, evenly spaced."""
FEW_APART = 8
"""Channels of a tensor that may be set apart where they stand anywhere."""
MANY_APART = (16, 24, 32)
"""The same where they stand side by side, as `ordering` puts them."""
BOTH_BELOW = 4
"""Outputs for each input below which channels may be set apart next to a balanced tensor; adding more takes long."""
OUTLIER = 1.5
"""A channel is set apart where it is this many times larger than the largest that would stay."""
STEPS = 255
MIDDLE = 128
"""Code of 0 where each token has its own scale."""
SMALLEST = np.float32(1e-30)
"""A token of zeros is as large as this."""

PASS = 35
"""Int8 multiplications that take as long as reading, changing and writing one float32 value (512 tokens, 384 to 1536
channels, AVX512-VNNI)."""
FLOAT = 4
"""Int8 multiplications that take as long as a float32 one."""
PICKED = 50
"""Values that are read and written while one channel is picked out of a token."""


@dataclass(frozen=True, slots=True)
class Coding:
    """uint8 code of a tensor [..., channels]: round((x - centre) / divisors / scale) + zero, cut to 0 .. 255."""

    divisors: Float32Array | None
    """[channels]; None for all ones."""
    apart: Indices
    """Ascending; channels that the int8 product leaves out."""
    scale: np.float32
    """With ``by_token`` times the token's largest value."""
    zero: np.uint8
    centre: Float32Array | None = None
    """[channels]; None for all zeros."""
    by_token: bool = False

    def decoded(self, x: Float32Array) -> Float32Array:
        """What the codes of ``x`` [tokens, channels] stand for, centred and divided; 0 for what is set apart."""
        divided = x if self.centre is None else x - self.centre
        divided = divided if self.divisors is None else divided / self.divisors
        scale = self.scale * _largest_of_tokens(divided) if self.by_token else self.scale
        codes = np.clip(np.rint(divided / scale) + np.float32(self.zero), 0, STEPS) - np.float32(self.zero)
        values = np.asarray(codes * scale, dtype=np.float32)
        values[:, self.apart] = 0
        return values

    def weights(self, weights: Float32Array) -> Float32Array:
        """``weights`` [channels, outputs] as the int8 product takes them: multiplied, and 0 for what is set apart."""
        taken = weights.copy() if self.divisors is None else weights * self.divisors[:, None]
        taken[self.apart] = 0
        return taken

    def reach(self) -> tuple[Float32Array, Float32Array]:
        """Smallest and largest value of each channel that is not cut; single numbers where they are all the same."""
        if self.by_token:
            return np.asarray(-np.inf, dtype=np.float32), np.asarray(np.inf, dtype=np.float32)
        divisors = np.float32(1) if self.divisors is None else self.divisors
        centre = np.float32(0) if self.centre is None else self.centre
        bottom = -np.float32(self.zero) * self.scale
        return np.asarray(bottom * divisors + centre), np.asarray((bottom + STEPS * self.scale) * divisors + centre)


def side_by_side(channels: Indices) -> bool:
    """Whether ascending channels are one slice."""
    return len(channels) > 0 and int(channels[-1] - channels[0]) == len(channels) - 1


def _no_channels() -> Indices:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Way:
    """How a tensor may be coded, without the ranges."""

    exponent: float | None = None
    """One of ``MIGRATIONS``; None where nothing is balanced."""
    divisors: Float32Array | None = None
    apart: Indices = field(default_factory=_no_channels)
    centred: bool = False
    """About the middle of each channel's range, with ``by_token`` about its mean."""
    by_token: bool = False

    def price(self, inputs: int, outputs: int) -> float:
        """The time that it takes, as a share of what the int8 products of these inputs and outputs take."""
        values = inputs * ((self.divisors is not None) + self.centred)
        multiplied = 0
        if self.by_token:
            # Size, largest, division; then multiplication, and the bias that the product can no longer add by itself.
            values += 3 * inputs + 3 * outputs
        if len(self.apart):
            values += outputs + (0 if side_by_side(self.apart) else PICKED * len(self.apart))
            multiplied = FLOAT * len(self.apart) * outputs
        return (values * PASS + multiplied) / (inputs * outputs + (inputs + outputs) * PASS)

    def code(self, low: Float32Array, high: Float32Array, mean: Float32Array) -> Coding:
        """The code for channels [channels] from ``low`` to ``high``."""
        if self.by_token:
            centre = mean if self.centred else None
            return Coding(self.divisors, self.apart, np.float32(1 / (STEPS // 2)), np.uint8(MIDDLE), centre, True)
        centre = np.asarray((low + high) / 2, dtype=np.float32) if self.centred else None
        low, high = (bound if centre is None else bound - centre for bound in (low, high))
        low, high = (bound if self.divisors is None else bound / self.divisors for bound in (low, high))
        low, high = np.delete(low, self.apart), np.delete(high, self.apart)
        scale, zero = activation_scale(float(low.min()), float(high.max()))
        return Coding(self.divisors, self.apart, scale, zero, centre)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The code of a tensor, and the error of the product's output relative to its deviation on unseen texts."""

    coding: Coding
    error: float
    plain: float
    """The same of the plain code: smallest to largest value, nothing balanced or set apart."""
    exponent: float | None
    """One of ``MIGRATIONS``; None where nothing is balanced."""


def choose(seen: Seen, weights: Float32Array, *, thrift: float = 1.0) -> Chosen:
    """The best code of a tensor that is multiplied by ``weights`` [channels, outputs], of all its products.

    A way that takes twice the time of the bare products counts as if it erred ``1 + thrift`` times as much.
    """
    trials = _trials(seen, weights)
    spread = max(float(np.concatenate([trial.product for trial in trials]).std(axis=0).mean()), 1e-12)
    ways = [Way(), *_ways(seen, weights)]  # the plain way first, so that it wins where nothing is gained
    parts = [_errors(seen, weights, way, trials) for way in ways]
    prices = [1 + thrift * way.price(*weights.shape) for way in ways]
    # The two parts are added as squares, as independent errors are.
    best = int(np.argmin([np.hypot(*part) * price for part, price in zip(parts, prices, strict=True)]))
    # The halves were for choosing. The code that ships has the ranges of all texts.
    coding = ways[best].code(seen.low.min(axis=0), seen.high.max(axis=0), seen.sample.mean(axis=0))
    return Chosen(coding, parts[best][0] / spread, parts[0][0] / spread, ways[best].exponent)


def unsearched(seen: Seen) -> Chosen:
    """The plain code, without looking for a better one: for graphs that are only timed. Its errors are not known."""
    coding = Way().code(seen.low.min(axis=0), seen.high.max(axis=0), seen.sample.mean(axis=0))
    return Chosen(coding, math.nan, math.nan, None)


def activation_scale(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that spread uint8 over [low, high], widened so that 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-12) / STEPS
    return np.float32(scale), np.uint8(np.clip(np.ceil(-low / scale - 0.01), 0, STEPS))


def balance(largest: Float32Array, weights: Float32Array, migration: float, floor: float) -> Float32Array:
    """Divisors [inputs] of the channels, with geometric mean 1; rows of ``weights`` [inputs, outputs] take them."""
    # A channel that was small on the calibration texts may be larger on others: it gets the room of that quantile.
    size = np.maximum(largest.astype(np.float64), max(float(np.quantile(largest, floor)), 1e-4))
    weight = np.maximum(np.abs(weights).max(axis=1).astype(np.float64), 1e-6)
    divisors = size**migration / weight ** (1 - migration)
    return np.asarray(divisors / np.exp(np.log(divisors).mean()), dtype=np.float32)


def outliers(largest: Float32Array) -> Indices:
    """Ascending indices of the channels to set apart: those that are ``OUTLIER`` times larger than what stays."""
    order = np.argsort(-largest, kind="stable")
    sizes = largest[order]
    count = 0
    for at in range(min(FEW_APART, len(sizes) - 1)):
        if sizes[at] > OUTLIER * sizes[at + 1] or sizes[at] > OUTLIER * sizes[min(FEW_APART, len(sizes) - 1)]:
            count = at + 1
    return np.sort(order[:count]).astype(np.int64)


def _ways(seen: Seen, weights: Float32Array) -> Iterator[Way]:
    """Scaling is the cheaper rewrite where no less comes out than goes in, setting apart where less does."""
    inputs, outputs = weights.shape
    if inputs <= outputs:
        yield from _scaled(seen, weights)
    else:
        largest = seen.largest
        yield Way(apart=outliers(largest))
        for count in (FEW_APART, *MANY_APART):
            apart = _largest(largest, count)
            if count == FEW_APART or side_by_side(apart):
                yield Way(apart=apart)


def _scaled(seen: Seen, weights: Float32Array) -> Iterator[Way]:
    low, high, mean = seen.low.min(axis=0), seen.high.max(axis=0), seen.sample.mean(axis=0)
    inputs, outputs = weights.shape
    floor = FLOOR if inputs == outputs else 0.0
    yield Way(by_token=True)
    for migration in MIGRATIONS:
        yield Way(migration, balance(seen.largest, weights, migration, floor))
        yield Way(migration, balance((high - low) / 2, weights, migration, floor), centred=True)
        about_mean = np.maximum(high - mean, mean - low)
        yield Way(migration, balance(about_mean, weights, migration, floor), centred=True, by_token=True)
        if inputs < outputs < BOTH_BELOW * inputs:
            apart = _largest(seen.largest, FEW_APART)
            rest = np.delete(np.arange(inputs), apart)
            divisors = np.ones(inputs, np.float32)
            divisors[rest] = balance(seen.largest[rest], weights[rest], migration, 0.0)
            yield Way(migration, divisors, apart)


def _largest(sizes: Float32Array, count: int) -> Indices:
    """Ascending indices of the largest channels, few where there are few."""
    return np.sort(np.argsort(-sizes, kind="stable")[: min(count, len(sizes) // 16)])


def _largest_of_tokens(x: Float32Array) -> Float32Array:
    """Of tokens [tokens, 1], never 0."""
    return np.asarray(np.maximum(np.abs(x).max(axis=1, keepdims=True), SMALLEST))


@dataclass(frozen=True, slots=True)
class _Trial:
    """Tokens of one half, and what some of the outputs are without any rounding."""

    x: Float32Array
    """[tokens, channels]"""
    product: Float32Array
    """[tokens, outputs that are tried]"""


def _tried(weights: Float32Array) -> slice:
    """Which outputs of ``weights`` [channels, outputs] are computed."""
    return slice(None, None, max(1, weights.shape[1] // TRIED_OUTPUTS))


def _trials(seen: Seen, weights: Float32Array) -> list[_Trial]:
    tried = np.ascontiguousarray(weights[:, _tried(weights)])
    tokens = [x[:: max(1, len(x) // TRIED_TOKENS)] for x in seen.samples]
    return [_Trial(x, x @ tried) for x in tokens]


def _errors(seen: Seen, weights: Float32Array, way: Way, trials: Sequence[_Trial]) -> tuple[float, float]:
    """Root mean square of the output's error, and the price of what would be cut off.

    Codes of each half's ranges on the other half's tokens.
    """
    tried = np.ascontiguousarray(weights[:, _tried(weights)])
    rounded = _rounded(way, tried)
    squares = []
    for half, trial in enumerate(trials):
        # On its own tokens a code never cuts anything off, and the widest range would always look worst.
        other = 1 - half
        coding = way.code(seen.low[other], seen.high[other], seen.samples[other].mean(axis=0))
        off = coding.decoded(trial.x) @ rounded - trial.product
        if len(way.apart):
            off += trial.x[:, way.apart] @ tried[way.apart]
        lost = RARE * _lost(coding, seen.low[half], seen.high[half], weights)
        squares.append((float(off.var(axis=0).mean()), lost**2))  # the mean goes into the bias
    error, price = np.sqrt(np.mean(squares, axis=0))
    return float(error), float(price)


def _rounded(way: Way, weights: Float32Array) -> Float32Array:
    """What the int8 weights stand for: they depend on the way, but on no range."""
    taken = weights.copy() if way.divisors is None else weights * way.divisors[:, None]
    taken[way.apart] = 0
    small, scales = quantize_weights(taken)
    return small * scales


def _lost(coding: Coding, low: Float32Array, high: Float32Array, weights: Float32Array) -> float:
    """Root mean square of the output's error at a token that has every channel at its worst."""
    bottom, top = coding.reach()
    beyond = np.maximum(np.maximum(high - top, bottom - low), 0)
    beyond[coding.apart] = 0
    if not beyond.any():  # as with a scale for each token
        return 0.0
    return float(np.sqrt(beyond.astype(np.float64) ** 2 @ (weights**2).mean(axis=1)))
