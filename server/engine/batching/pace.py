"""How long work really takes, against what the cost tables say: learnt from every batch, so that estimates stay honest.

Two things come between a table and the clock. A batch may take longer than it was measured to, for neighbours take the
CPUs: ``factor``. And what waits may take more batches than its rows would at their best, and workers need a moment
between batches: ``waste``, learnt only where workers had no pause, for an idle machine tells nothing of it.
"""

from __future__ import annotations

_MEMORY = 0.08
"""Weight of the newest batch: about the last dozen count, each by its seconds."""
_RATIOS = (0.05, 20.0)
"""One stalled batch must not blow the estimate up."""
_WASTE = (1.0, 3.0)


class _Ratio:
    """Seconds by seconds, both summed up and slowly forgotten: a long batch says more than a short one."""

    __slots__ = ("_above", "_below")

    def __init__(self) -> None:
        self._above = self._below = 0.0

    @property
    def value(self) -> float:
        return self._above / self._below if self._below else 1.0

    def learn(self, above: float, below: float) -> None:
        low, high = _RATIOS
        above = min(high * below, max(low * below, above))
        if not self._below:  # as if a few batches had gone as expected
            self._above = self._below = 4 * below
        self._above += above - _MEMORY * self._above
        self._below += below - _MEMORY * self._below


class Pace:
    """Learns from batches; one for all models, for they share the workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._runs, self._shapes, self._gaps = _Ratio(), _Ratio(), _Ratio()
        self._tokens = self._rows_s = 0.0  # summed up and slowly forgotten
        self._busy_since: float | None = None
        # Each request asks for these several times, and only a batch changes them.
        self.factor = 1.0
        """What a batch takes, relative to its cost table."""
        self.waste = 1.0
        """What work takes under load, relative to the best batches of its rows; at least 1."""
        self.speed = float(workers)
        """Seconds of work, as the tables count it, that all workers together do in a second."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of such text as came lately that all workers together do in a second; None before any has come."""
        return self.speed * self._tokens / self._rows_s if self._rows_s else None

    def idle(self) -> None:
        """A worker has found nothing to do."""
        self._busy_since = None

    def learn(self, now: float, *, took_s: float, table_s: float, rows_s: float, tokens: int, under_load: bool) -> None:
        """A batch of so many tokens has ended.

        ``table_s`` is what its table says of it, ``rows_s`` of its rows at their best; ``under_load``: more waited when
        it began.
        """
        self._tokens += tokens - _MEMORY * self._tokens
        self._rows_s += rows_s - _MEMORY * self._rows_s
        self._runs.learn(took_s, table_s)
        self.factor = self._runs.value
        if under_load:
            self._shapes.learn(table_s, rows_s)
            if self._busy_since is not None:
                self._gaps.learn((now - self._busy_since) * self._workers, took_s)
            self._busy_since = now
            low, high = _WASTE
            self.waste = min(high, max(low, self._shapes.value)) * min(high, max(low, self._gaps.value))
        self.speed = self._workers / (self.factor * self.waste)
