"""Goodput against load in virtual time, one flat row for each traffic, weather and load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pairwire.server.runtime.base import Int32Array

from .overload import LOADS, POLICIES, Weather, capacity, goodput, overload, traffic
from .tables import Recording


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes."""

    name: str
    sizes: tuple[int, ...]
    """Pairs of a request, drawn evenly."""
    deadlines_s: tuple[float, ...]


TRAFFIC = (
    Traffic("32 pairs, 1 s", (32,), (1.0,)),
    Traffic("1-64 pairs, 0.5-2 s", (1, 1, 1, 2, 4, 8, 16, 32, 64), (0.5, 1.0, 2.0)),
)
WEATHERS = {
    "exact": Weather(),
    "noise": Weather(noise=0.3, seed=1),
    "noise, half the CPUs gone midway": Weather(noise=0.3, slow=2.0, seed=2),
}
_END_S = 20.0


def overload_rows(
    recording: Recording, series: Sequence[Int32Array], what: Traffic, weather: str, seed: int = 0
) -> list[dict[str, object]]:
    """One row for each load, with the goodput of every policy as a share of the capacity."""
    known = WEATHERS[weather]
    some = traffic(recording, series, sizes=what.sizes, deadlines_s=[1.0], per_s=1.0, end=200.0, seed=seed)
    rate = capacity(recording, some, known)
    rows: list[dict[str, object]] = []
    for load in LOADS:
        requests = traffic(
            recording,
            series,
            sizes=what.sizes,
            deadlines_s=what.deadlines_s,
            per_s=load * rate,
            end=_END_S,
            seed=seed + 1,
        )
        row: dict[str, object] = {"traffic": what.name, "weather": weather, "load": load}
        for name, make in POLICIES.items():
            outcome = overload(make(recording), requests, recording, known, end=_END_S)
            row[f"goodput_{name.replace('-', '_')}"] = goodput(outcome, rate, known, _END_S)
        rows.append(row)
    return rows
