"""Requests: how many pairs each, of which lengths, and when they come. The same for every rule, by the seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pairwire.server.runtime.base import Int32Array

from .rules import Call
from .simulation import OpenLoop

LARGEST_CALL = 100
"""Pairs of the largest request: a reranked candidate list. The smallest has one."""


def calls_of(requests: Iterable[Sequence[int]]) -> list[Call]:
    """Calls with rows of these lengths, numbered on."""
    calls: list[Call] = []
    first_row = 0
    for lengths in requests:
        calls.append(Call(len(calls), first_row, tuple(lengths)))
        first_row += len(lengths)
    return calls


def make_calls(series: Sequence[Int32Array], count: int, seed: int) -> list[Call]:
    """Requests of 1 to 100 pairs, every order of magnitude equally likely, each a stretch of one of the series.

    Neighbours in a series belong together (the passages of one query), so a request is as alike as in the data.
    """
    rng = np.random.default_rng(seed)

    def draw() -> list[int]:
        lengths = series[int(rng.integers(len(series)))]
        size = int(np.exp(rng.uniform(0.0, np.log(LARGEST_CALL + 1))))
        start = int(rng.integers(len(lengths)))
        chosen: list[int] = np.take(lengths, np.arange(start, start + size), mode="wrap").tolist()
        return chosen

    return calls_of(draw() for _ in range(count))


def poisson(calls: int, calls_per_s: float, seed: int) -> OpenLoop:
    """Poisson arrivals at that rate."""
    return OpenLoop(np.cumsum(np.random.default_rng(seed + 1).exponential(1.0 / calls_per_s, calls)))


def mean_rows(calls: Sequence[Call]) -> float:
    """Pairs of a request, on average."""
    return float(np.mean([len(call.lengths) for call in calls]))
