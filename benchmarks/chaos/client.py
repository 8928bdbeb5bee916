"""One process of clients: sends requests of all kinds until it is asked to stop, and keeps what became of each."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub

from .faults import Fault

if TYPE_CHECKING:
    from pairwire.v1.scoring_pb2_grpc import ScoringServiceAsyncStub

TOLERANCE = 1e-4
_LATE_S = 20.0
"""No answer by then is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one process does."""

    address: str
    query: str
    expected: Mapping[str, float]
    """Document -> its score."""
    callers: int
    seed: int


@dataclass(slots=True)
class Outcomes:
    """What became of the requests of one process."""

    sent: int = 0
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind of request, status code) -> how many."""
    reasons: Counter[str] = field(default_factory=Counter)
    """The first words of every refusal."""
    wrong: list[str] = field(default_factory=list)
    """Answers that are not right, and refusals without a reason."""


def run(plan: Plan, stop: threading.Event) -> Outcomes:
    """Blocks until ``stop``, which another process has, is set, and every request has its outcome."""
    return asyncio.run(_run(plan, stop))


async def _run(plan: Plan, stop: threading.Event) -> Outcomes:
    outcomes, done = Outcomes(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        stop.wait()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=wait, daemon=True).start()
    callers = [_Caller(plan, outcomes, random.Random(f"{plan.seed}/{at}")) for at in range(plan.callers)]
    await asyncio.gather(*(caller.call_until(done) for caller in callers))
    return outcomes


class _Caller:
    def __init__(self, plan: Plan, outcomes: Outcomes, rng: random.Random) -> None:
        self._plan, self._outcomes, self._rng = plan, outcomes, rng
        self._documents = list(plan.expected)

    async def call_until(self, done: asyncio.Event) -> None:
        while not done.is_set():
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            async with grpc.aio.insecure_channel(self._plan.address, options=options) as channel:
                scoring = ScoringServiceStub(channel)
                for _ in range(self._rng.randrange(1, 20)):
                    if done.is_set():
                        return
                    await self._act(scoring)

    async def _act(self, scoring: ScoringServiceAsyncStub) -> None:
        kind = self._rng.choices(
            ("plain", "burst", "deadline", "leave", "raise", "nan", "hang"), (60, 4, 10, 8, 6, 6, 0.3)
        )[0]
        if kind == "burst":
            await asyncio.gather(*(self._send(scoring, "plain") for _ in range(30)))
        else:
            await self._send(scoring, kind)

    async def _send(self, scoring: ScoringServiceAsyncStub, kind: str) -> None:
        documents = self._rng.choices(self._documents, k=self._rng.randrange(1, 12))
        poison = {"raise": Fault.RAISE, "nan": Fault.NAN, "hang": Fault.HANG}.get(kind)
        given = [*documents, poison.value] if poison else documents
        request = scoring_pb2.RerankRequest(query=self._plan.query, documents=given)
        self._outcomes.sent += 1
        timeout = self._rng.uniform(0.001, 0.05) if kind == "deadline" else _LATE_S
        call = asyncio.ensure_future(scoring.Rerank(request, timeout=timeout))
        if kind == "leave":
            await asyncio.sleep(self._rng.uniform(0, 0.02))
            call.cancel()
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            self._refused(kind, error.code().name, error.details() or "")
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(self._rng.uniform(0.02, 0.2))
        except asyncio.CancelledError:
            self._outcomes.codes[kind, "CANCELLED"] += 1
        else:
            self._answered(kind, documents, answer)

    def _answered(self, kind: str, documents: Sequence[str], answer: scoring_pb2.RerankResponse) -> None:
        self._outcomes.codes[kind, "OK"] += 1
        scores = {each.index: each.score for each in answer.results}
        expected = [self._plan.expected[document] for document in documents]
        if len(scores) != len(expected) or not all(
            math.isclose(scores[at], score, abs_tol=TOLERANCE) for at, score in enumerate(expected)
        ):
            self._outcomes.wrong.append(f"{kind}: {scores} are not {expected}")

    def _refused(self, kind: str, code: str, reason: str) -> None:
        self._outcomes.codes[kind, code] += 1
        self._outcomes.reasons[f"{code}: {reason[:60]}"] += 1
        if not reason:
            self._outcomes.wrong.append(f"{kind}: {code} without a reason")
