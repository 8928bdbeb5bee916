"""Runs batches under the watchdog; where one fails, finds the inputs to blame, so that the others are answered.

A batch that raises, or that hangs and could be ended, is run again in halves, and these in halves, down to single rows.
A row that fails by itself is to blame, if the model works: its probe must succeed first. Where the probe fails too, the
model is at fault and nothing is run again. A result that is not finite needs no second run, for rows do not depend on
their neighbours; where no row of a batch has a finite result, the probe says whose fault that is.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import EngineFault, InvalidInput, PairwireError
from ...runtime.base import Float32Array
from ..models.model import Model
from ..text.encoder import EncodedRows
from ..watchdog import RunHung, Watchdog

logger = logging.getLogger(__name__)

Rows = Sequence[tuple[EncodedRows, int]]

_AGAIN_S = 2.0
"""The floor for runs that look for the one that hangs: the callers have waited long enough."""
_MOST_HANGS = 12
"""Runs of one batch that may hang: enough to find two rows among 32. The worker has others to serve."""


class NotFinite(ValueError):
    """The graph gives numbers that are not finite whatever it reads."""


@dataclass(frozen=True, slots=True)
class Blame:
    """Why a row has no result."""

    reason: str
    proven: bool = True
    """Whether it failed by itself, while the model worked."""

    def error(self, field: str, row: int) -> PairwireError:
        """What the caller of that row learns: that input is bad if, and only if, it is known to be this one."""
        if self.proven:
            return InvalidInput(f"{field}[{row}]", f"{self.reason}; leave it out or change it")
        return EngineFault(f"{self.reason}; try again later")


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch."""

    values: Float32Array
    """[rows, outputs]; not finite in rows that failed."""
    blamed: Mapping[int, Blame]
    """Those rows."""
    at_once: bool
    """Whether it was one run, so that its time tells what such a batch costs."""


class Runner:
    """Runs models for all workers; safe to call from several threads."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def run(self, model: Model, rows: Rows, length: int, expected_s: float) -> Ran:
        """A batch; ``length`` as in ``Model.run``.

        Raises:
            Whatever the model raises where it is the model that fails, and not single rows.
        """
        try:
            values = self._run_once(model, rows, length, expected_s, None)
        except Exception as error:  # whatever the runtime raises
            return self._search(model, rows, length, expected_s, error)
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        if len(wrong) == len(rows):
            self.probe(model)
        blame = Blame("the model's result for it is not a finite number")
        return Ran(values, dict.fromkeys(wrong, blame), at_once=True)

    def probe(self, model: Model) -> None:
        """Tries the model on its smallest bucket.

        Raises:
            NotFinite: its results are not finite.
            Whatever the model raises.
        """
        values = self._watchdog.run(f"a probe of model {model.name!r}", model.probe, _interrupter(model))
        if not np.isfinite(values).all():
            raise NotFinite(f"the graph of {model.name!r} gives numbers that are not finite")

    def _run_once(
        self, model: Model, rows: Rows, length: int, expected_s: float, floor_s: float | None
    ) -> Float32Array:
        return self._watchdog.run(
            f"a run of model {model.name!r} on {len(rows)} x {length}",
            lambda: model.run(rows, length),
            _interrupter(model),
            expected_s=expected_s,
            floor_s=floor_s,
        )

    def _search(self, model: Model, rows: Rows, length: int, expected_s: float, first: Exception) -> Ran:
        """Runs rows apart after their batch has failed."""
        try:
            self.probe(model)
        except Exception as error:  # the model fails on anything
            raise first from error
        values = np.full((len(rows), model.outputs), np.nan, np.float32)
        blamed: dict[int, Blame] = {}
        hangs = int(isinstance(first, RunHung))
        waiting = _halves(range(len(rows)))
        while waiting:
            part = waiting.pop()
            if hangs >= _MOST_HANGS:
                blamed.update(dict.fromkeys(part, Blame("a run of the model with it and others hung", proven=False)))
                continue
            try:
                some = rows[part.start : part.stop]
                values[part.start : part.stop] = self._run_once(model, some, length, expected_s, _AGAIN_S)
            except Exception as error:
                hangs += isinstance(error, RunHung)
                if len(part) == 1:
                    blamed[part.start] = _blame(error)
                else:
                    waiting += _halves(part)
        for row in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
            blamed.setdefault(row, Blame("the model's result for it is not a finite number"))
        # The runtime's message names operators and shapes, never text; still it stays in the log.
        logger.warning(
            "model %r failed on a batch of %d x %d (%s); it works, and %d of these inputs are to blame",
            *(model.name, len(rows), length, _first_line(first), len(blamed)),
        )
        return Ran(values, blamed, at_once=False)


def _interrupter(model: Model) -> Callable[[], None]:
    """Ends what the calling thread is about to run."""
    return functools.partial(model.runtime.interrupt, threading.get_ident())


def _halves(part: range) -> list[range]:
    """The two halves of some rows; one row as it is."""
    middle = (part.start + part.stop + 1) // 2
    return [half for half in (range(part.start, middle), range(middle, part.stop)) if half]


def _blame(error: Exception) -> Blame:
    if isinstance(error, RunHung):
        return Blame("the model came to no end on it, and was stopped")
    return Blame(f"the model fails on it, and on no other ({type(error).__name__})")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
