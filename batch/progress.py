"""What a person sees of a bulk run: a bar with rate, time left, padding, duplicates, errors and cost so far."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

_HOUR_S = 3600.0


@dataclass(slots=True)
class Report:
    """What was done, since the last report or all together."""

    rows: int = 0
    items: int = 0
    """Pairs or texts of these rows."""
    computed: int = 0
    """Those that were no duplicates."""
    tokens: int = 0
    """Of what was computed, padding left out."""
    padding: int = 0
    """Tokens of padding that were computed."""
    errors: int = 0
    """Bad rows."""
    parts: int = 0

    def add(self, other: Self) -> None:
        """Takes in another."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Progress:
    """Counts reports, and shows them on a terminal."""

    def __init__(self, *, total: int | None, done: int, price_per_hour: float, bar: Any = None) -> None:
        """``total`` rows, ``done`` of them before; ``price_per_hour`` of the machine, 0 where nobody asks."""
        self.total = Report()
        self._price = price_per_hour
        self._began = time.monotonic()
        self._bar = bar
        self._rows, self._done = total, done

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    @property
    def cost(self) -> float:
        """So far, in the currency of the price."""
        return self.seconds / _HOUR_S * self._price

    @property
    def padding_share(self) -> float:
        """Of the tokens that were computed."""
        return self.total.padding / max(1, self.total.padding + self.total.tokens)

    def add(self, report: Report) -> None:
        """Some more is done."""
        self.total.add(report)
        if self._bar is not None:
            self._bar.set_postfix_str(self._described(), refresh=False)
            self._bar.update(report.rows)

    def _described(self) -> str:
        found = f"padding {self.padding_share:.1%}, {self.total.tokens / 1e6:.1f}M tokens"
        if self.total.items > self.total.computed:
            found += f", {1 - self.total.computed / self.total.items:.0%} duplicates"
        if self.total.errors:
            found += f", {self.total.errors} bad rows"
        return f"{found}, cost {self.cost:.2f}" if self._price else found


@contextmanager
def progress(total: int | None, done: int, price_per_hour: float) -> Iterator[Progress]:
    """With a bar where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield Progress(total=total, done=done, price_per_hour=price_per_hour)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=" rows", unit_scale=True, file=sys.stderr, leave=False) as bar:
        yield Progress(total=total, done=done, price_per_hour=price_per_hour, bar=bar)


def cpu_seconds() -> float:
    """That this process and its children that have ended took."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system
