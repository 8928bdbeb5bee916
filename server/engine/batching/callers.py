"""Whose turn it is: the machine is shared fairly among callers, and within a caller what is due first goes first.

Each caller is charged for the work that is done for it, by its weight. Callers are compared in steps of ``STEP_S``:
who is a step behind goes first, and among those on one step it is again what is due first, so that callers who want
little wait for nobody's backlog, while equals are served in the order in which they are due. A caller that comes
after a pause starts one step below what is being served, whatever it left unused before: nobody saves up.

HIGH priority goes before that, whoever it is of, and LOW after it, until they have waited out their patience.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic

from .agenda import Agenda
from .ledger import Key, Ledger
from .pool import P, QueuedRows
from .priority import Priority

STEP_S = 0.25
"""Seconds of work of one worker that a caller may be ahead of another: the burst that is nobody's business."""
_FORGOTTEN = 256
"""Callers that are remembered although nothing of them waits."""
_LATELY_S = 1.0
_TIERS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


@dataclass(eq=False, slots=True)
class Booking:
    """Work that is being read, or waits for what it depends on, and will be admitted in one or several parts."""

    caller: str
    deadline: float
    key: Key
    """When it is due, and its number."""
    rows: int
    """That have not come yet."""
    row_s: float
    """Of each, by the cost table, as far as one can tell."""


@dataclass(eq=False, slots=True)
class Share(Generic[P]):
    """What waits of one caller, and what it has had."""

    name: str
    weight: float
    used: float
    """Seconds of work done for it by its weight, on the callers' common scale."""
    agenda: Agenda[QueuedRows[P]] = field(default_factory=Agenda)
    ledger: Ledger = field(default_factory=Ledger)
    """What waits, and what is being read and will wait soon."""
    urgent: int = 0
    """Requests with HIGH priority that wait."""
    urgent_s: float = 0.0

    @property
    def step(self) -> int:
        """Where it stands among the callers; the lower goes first."""
        return math.floor(self.used / STEP_S)

    def tier(self, first: QueuedRows[P]) -> int:
        """0 is served before 1, 1 before 2, among callers."""
        return 0 if self.urgent else _TIERS[first.priority]


class Callers(Generic[P]):
    """All callers that wait, and a while longer. Pure bookkeeping: no clock, no policy but the order."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        """``weights`` by caller; 1 for all others."""
        self._weights = dict(weights or {})
        self._shares: dict[str, Share[P]] = {}
        self._last, self._last_at = "", -math.inf  # whose request came last
        self._other_at = -math.inf  # when one of somebody else did
        self._reached = 0.0  # what was last served, on the scale of ``Share.used``

    def __iter__(self) -> Iterator[Share[P]]:
        return iter(self._shares.values())

    def share(self, name: str) -> Share[P]:
        """A caller's share; a new one where it is not known."""
        share = self._shares.get(name)
        lowest = self._reached - STEP_S
        if share is None:
            if len(self._shares) >= _FORGOTTEN:
                self._forget()
            share = self._shares[name] = Share(name, self._weights.get(name, 1.0), lowest)
        elif not share.ledger:
            share.used = max(share.used, lowest)
        return share

    def first(self, now: float) -> QueuedRows[P] | None:
        """What is next. What has waited out its patience is as urgent as anything is; the steps count all the same."""
        if len(self._shares) == 1:
            return next(iter(self._shares.values())).agenda.first()
        waiting = [(share, first) for share in self._shares.values() if (first := share.agenda.first()) is not None]
        if not waiting:
            return None
        top = min(share.tier(first) for share, first in waiting)

        def order(entry: tuple[Share[P], QueuedRows[P]]) -> tuple[int, int, float, int]:
            share, first = entry
            tier = top if first.patient_until <= now else share.tier(first)
            return tier, share.step, first.due, first.sequence

        return min(waiting, key=order)[1]

    def others_about(self, name: str, now: float) -> bool:
        """Whether another caller has brought something lately, and may do so again."""
        return now - (self._other_at if name == self._last else self._last_at) < _LATELY_S

    def not_above(self, name: str) -> list[Share[P]] | None:
        """A caller, first, and those who have had no more, by the step; None where that is all who wait."""
        if len(self._shares) == 1:
            return None
        mine = self._shares[name]
        others = [share for share in self._shares.values() if share is not mine and share.ledger]
        below = [share for share in others if share.step <= mine.step]
        return None if len(below) == len(others) else [mine, *below]

    def enter(self, queued: QueuedRows[P]) -> None:
        """A request waits."""
        if queued.caller != self._last:
            self._last, self._other_at = queued.caller, self._last_at
        self._last_at = queued.arrival
        share = self.share(queued.caller)
        share.agenda.add(queued.due, queued.sequence, queued)
        share.ledger.add((queued.due, queued.sequence), queued.seconds, queued.deadline)
        if queued.priority is Priority.HIGH:
            share.urgent += 1
            share.urgent_s += queued.seconds

    def leave(self, queued: QueuedRows[P]) -> None:
        """None of its rows waits any more."""
        share = self._shares[queued.caller]
        share.agenda.remove(queued.sequence)
        share.ledger.remove((queued.due, queued.sequence))
        if queued.priority is Priority.HIGH:
            share.urgent -= 1
            share.urgent_s = max(0.0, share.urgent_s - queued.seconds) if share.urgent else 0.0

    def begin(self, queued: QueuedRows[P], seconds: float) -> None:
        """Rows of it were taken that are so much work."""
        share = self._shares[queued.caller]
        self._reached = max(self._reached, share.used)
        share.used += seconds / share.weight
        if not queued.waiting:
            self.leave(queued)
            queued.seconds = 0.0
            return
        queued.seconds -= seconds
        share.ledger.change((queued.due, queued.sequence), queued.seconds)
        if queued.priority is Priority.HIGH:
            share.urgent_s -= seconds

    def book(self, booking: Booking) -> None:
        """Work will come."""
        self.share(booking.caller).ledger.add(booking.key, booking.rows * booking.row_s, booking.deadline)

    def unbook(self, booking: Booking, rows: int) -> None:
        """This many of its rows have come, or will not come."""
        if not booking.rows:
            return
        booking.rows -= min(rows, booking.rows)
        ledger = self._shares[booking.caller].ledger
        if booking.rows:
            ledger.change(booking.key, booking.rows * booking.row_s)
        else:
            ledger.remove(booking.key)

    def ahead(self, mine: Share[P], due: float, own_s: float, *, urgent: bool) -> float:
        """Seconds of work that would be begun before the last of ``own_s`` more that is due then."""
        ahead = mine.ledger.until(due)
        for other in self._shares.values():
            if other is not mine and other.ledger.total:
                ahead += self._of_other(mine, other, due, ahead, own_s, urgent)
        return ahead

    @staticmethod
    def _of_other(mine: Share[P], other: Share[P], due: float, ahead: float, own_s: float, urgent: bool) -> float:
        reached = mine.used + (ahead + own_s) / mine.weight
        fair = max(0.0, (reached - other.used) * other.weight)
        if other.step > math.floor(reached / STEP_S):
            fair = 0.0
        elif other.step >= mine.step:
            fair = min(other.ledger.until(due), fair + STEP_S)
        if urgent:
            return min(fair, other.urgent_s)
        return min(other.ledger.total, max(fair, other.urgent_s))

    def _forget(self) -> None:
        """Callers of whom nothing waits and who would start again all the same."""
        lowest = self._reached - STEP_S
        idle = [name for name, share in self._shares.items() if not share.ledger]
        for name in idle:
            if self._shares[name].used <= lowest or len(self._shares) >= 2 * _FORGOTTEN:
                del self._shares[name]
