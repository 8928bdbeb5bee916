"""Who is let in: by an honest estimate of when the work would be done, for the one that asks and for those inside.

What is refused is refused at once. A deadline is accepted only if it will be met behind all that goes first, and if
nobody who was let in before misses a deadline for it; without a deadline, the wait is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from ...errors import DeadlineExceeded, InvalidInput, Overloaded
from .callers import Callers, Share
from .pace import Pace
from .pool import P, QueuedRows
from .priority import Priority

STRETCH = 4.0
"""How many times its own time a request gives way to what arrives later. In mixed traffic at 80 % of capacity 4 cuts
the median latency to a quarter of that of plain arrival order and the 99th percentile of the slowdown to half, while
the 99th percentile of the latency stays; 8 raises that by a fifth."""
_COMPANY = 0.25
"""Part of its time that a request with a deadline leaves to others, which fill its batches: without them batches would
be small, and with all that waits in them it would be the last to be done."""
_COMPANY_BATCHES = 32
"""Full batches that such company has at most."""
SAFETY = 1.1
"""An estimate is an average, and work that misses its deadline by a moment was done for nothing."""
_LEAST_PUSHBACK_S, _MOST_PUSHBACK_S = 0.05, 10.0
_JITTER = 0.5
"""Those who are refused together shall not come back together: push-back varies by so much of itself."""
_LESS = "allow more time, send less, or try another server"
_RETURN_S = 2.0
"""Work that was turned away is expected back, for about so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """What may wait."""

    tokens: int
    """All together."""
    wait_s: float = math.inf
    """Longest estimated wait of a request that is let in."""
    low_wait_s: float = math.inf
    """The same at LOW priority."""

    def wait_of(self, priority: Priority) -> float:
        """Seconds that a request of that priority may have to wait."""
        return self.low_wait_s if priority is Priority.LOW else self.wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Work that asks to be let in."""

    caller: str
    priority: Priority
    deadline: float
    seconds: float
    """By the cost table, its rows in their best batches."""
    rows: int
    tokens: int
    batch_s: float
    """By the cost table, a full batch of its longest rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The same, and what follows from it at one moment."""

    asked: Asked
    due: float
    patient_until: float
    own_s: float
    """What it would take if nothing else were here."""
    company_s: float
    """How long it may be kept waiting for others that fill its batches."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why work may not come in."""

    late: bool
    """Because of its deadline, or somebody else's; else because too much waits."""
    what: str
    """A sentence, without what to do about it."""
    remedy: str
    """What to do about it."""
    wait_s: float
    """How long it would wait; +inf where load is not the reason."""


class Admission(Generic[P]):
    """Decides with what the scheduler tells it; keeps no request."""

    def __init__(
        self,
        callers: Callers[P],
        pace: Pace,
        *,
        workers: int,
        limits: QueueLimits,
        stretch: float,
        random: Callable[[], float],
    ) -> None:
        """``stretch``, ``random``: see the scheduler."""
        self._stretch = stretch
        self._callers = callers
        self._pace = pace
        self._workers = workers
        self._limits = limits
        self._random = random
        self._refused_s = 0.0
        self._refused_at = -math.inf

    def wanted(self, asked: Asked, now: float) -> Wanted:
        """When work is due, and what it would take, if it came in now."""
        own_s = asked.seconds * self._pace.factor / min(self._workers, asked.rows)
        batch_s = asked.batch_s * self._pace.factor
        company_s = batch_s if asked.rows == 1 else min(_COMPANY * (asked.deadline - now), _COMPANY_BATCHES * batch_s)
        patient_until = due = now + asked.priority.patience_s + self._stretch * own_s
        if asked.deadline < math.inf:
            due = max(now, min(due, asked.deadline - own_s - company_s))
        return Wanted(asked=asked, due=due, patient_until=patient_until, own_s=own_s, company_s=company_s)

    def check_size(self, queued: QueuedRows[P]) -> None:
        """Raises InvalidInput where it alone is larger than the whole queue."""
        if queued.tokens > self._limits.tokens:
            raise InvalidInput(
                queued.field,
                f"{queued.tokens} tokens are more than the whole queue holds ({self._limits.tokens}); "
                "split the input over several requests",
            )

    def check(self, wanted: Wanted, now: float, *, running_s: float, waiting_tokens: int, booked: bool = False) -> None:
        """Returns if the work may come in.

        ``running_s``: how long the batches that run still take, added up. ``booked``: it is part of what was let in,
        and may be behind the rest of that.

        Raises:
            Overloaded: too much waits.
            DeadlineExceeded: its deadline has passed, would not be met, or would cost somebody else's.
        """
        found = self.objection(wanted, now, running_s=running_s, waiting_tokens=waiting_tokens, booked=booked)
        if found is not None:
            raise self._refusal(found, wanted, now)

    def objection(
        self, wanted: Wanted, now: float, *, running_s: float, waiting_tokens: int, booked: bool = False
    ) -> Objection | None:
        """What speaks against letting work in, None where nothing does; as ``check``, and nothing is noted."""
        asked = wanted.asked
        left = asked.deadline - now
        if left <= 0:
            what = "the deadline had passed before the request was queued"
            return Objection(True, what, "allow more time", math.inf)
        mine = self._callers.share(asked.caller)
        urgent = asked.priority is Priority.HIGH
        ahead = self._callers.ahead(mine, wanted.due, wanted.asked.seconds, urgent=urgent)
        speed = self._pace.speed
        wait_s = running_s / self._workers + ahead / speed
        if not booked and (full := self._no_room(wanted, wait_s, waiting_tokens)):
            return Objection(False, full, "", wait_s)
        estimate = self._estimate(wanted, wait_s, ahead > 0)
        if estimate * SAFETY > left:
            what = f"the answer would take about {estimate:.3f} s and the deadline is in {left:.3f} s"
            return Objection(True, what, _LESS, wait_s)
        if urgent:
            return None
        others_s = ahead - mine.ledger.until(wanted.due) + running_s / self._pace.factor
        over_s = self._too_much(mine, wanted, now, others_s)
        if not over_s:
            return None
        what = f"requests that were accepted before would be {over_s:.3f} s late for it"
        return Objection(True, what, _LESS, wait_s)

    def pushback_s(self, now: float, wait_s: float, seconds: float) -> float:
        """When who is refused ``seconds`` of work should come back: not before what waits and what was refused is done.

        The more work was refused lately, the later: it comes back too.
        """
        self._refused_s = self._refused_s * math.exp((self._refused_at - now) / _RETURN_S) + seconds
        self._refused_at = now
        whole = wait_s + self._refused_s / self._pace.speed
        spread = 1.0 - _JITTER / 2 + _JITTER * self._random()
        return min(_MOST_PUSHBACK_S, max(_LEAST_PUSHBACK_S, whole)) * spread

    def _estimate(self, wanted: Wanted, wait_s: float, loaded: bool) -> float:
        """Seconds until it would be done."""
        pace = self._pace
        return wait_s + (wanted.own_s * pace.waste + wanted.company_s if loaded else wanted.own_s)

    def _too_much(self, mine: Share[P], wanted: Wanted, now: float, others_s: float) -> float:
        """Seconds by which its caller would miss a deadline that was accepted; one that is lost anyway bars nobody."""
        speed = self._pace.speed
        slack = mine.ledger.slack_after(wanted.due, speed / SAFETY) - now * speed / SAFETY - others_s
        return (wanted.asked.seconds - slack) / speed if 0 <= slack < wanted.asked.seconds else 0.0

    def _no_room(self, wanted: Wanted, wait_s: float, waiting_tokens: int) -> str:
        """Why the queue does not take it; empty where it does."""
        # Who brings much waits in proportion, as the order does: four large requests at once are no overload.
        most_s = self._limits.wait_of(wanted.asked.priority) + self._stretch * wanted.own_s
        if waiting_tokens and waiting_tokens + wanted.asked.tokens > self._limits.tokens:
            return (
                f"the queue holds {waiting_tokens} tokens of at most {self._limits.tokens} and has no room for "
                f"{wanted.asked.tokens} more"
            )
        if wait_s > most_s:
            return (
                f"the wait would be about {wait_s:.3f} s, and at {wanted.asked.priority.value} priority it may be "
                f"{most_s:.3g} s"
            )
        return ""

    def _refusal(self, found: Objection, wanted: Wanted, now: float) -> Overloaded | DeadlineExceeded:
        if found.late and found.wait_s == math.inf:
            return DeadlineExceeded(f"{found.what}; {found.remedy}")
        retry_after_s = self.pushback_s(now, found.wait_s, wanted.asked.seconds)
        if found.late:
            return DeadlineExceeded(f"{found.what}; {found.remedy}", retry_after_s=retry_after_s)
        return Overloaded(f"{found.what}; try again in {retry_after_s:.3f} s", retry_after_s=retry_after_s)
