"""One client process of the load test: sends ready-made requests on its own channels and records every answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from pairwire.client.proxy import proxy_arguments
from pairwire.v1 import scoring_pb2

from .http_channel import HttpChannel, HttpFailed
from .protocols import call_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What one client process does. Times in seconds."""

    address: str
    shape: str
    """With ``protocol``, a key of ``protocols.CALLS``."""
    protocol: str = "pairwire"
    requests: Sequence[bytes]
    """Serialised requests, sent round robin in a shuffled order."""
    concurrency: int
    """Closed loop: calls in flight. Ignored where ``rate_hz`` is set."""
    connections: int
    """Calls go over this many in turn. A server of several processes gets its share of them, not of the calls."""
    rate_hz: float | None
    """Open loop: mean arrivals a second, with exponential gaps."""
    warmup_s: float
    duration_s: float
    deadline_s: float
    seed: int
    metadata: tuple[tuple[str, str], ...] = ()
    """Sent with every call."""


@dataclass(slots=True)
class Record:
    """What came back, one entry a call that was due in the measured window."""

    latency_s: list[float] = field(default_factory=list)
    """Open loop: from when the call was due, so that a client that falls behind cannot hide a slow server."""
    codes: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    padded_tokens: list[int] = field(default_factory=list)
    queue_s: list[float] = field(default_factory=list)
    compute_s: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Which of the requests each call sent."""
    rankings: list[tuple[int, ...]] = field(default_factory=list)
    """Shape rerank: indices of the documents in the order of the answer; empty for a call that was not answered."""
    unscored: list[int] = field(default_factory=list)
    """Shape rerank: documents of each answer without a score."""
    sent: int = 0
    """Calls that ended, those of the warm-up included."""
    answered: int = 0
    """Calls answered OK inside the window, whenever they were due: what a rate is made of."""
    answered_tokens: int = 0
    measured_s: float = 0.0
    """From the start of the window to the last answer."""
    client_cpu_s: float = 0.0


def run(plan: Plan) -> Record:
    """Blocks until the window is over and every call in it is answered."""
    return asyncio.run(_run(plan))


async def _run(plan: Plan) -> Record:
    record = Record()
    chosen = call_of(plan.protocol, plan.shape)
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),  # channels would share one connection otherwise
        *proxy_arguments(plan.address),
    ]
    async with contextlib.AsyncExitStack() as stack:
        calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, Any] | HttpChannel] = []
        if plan.protocol == "http":  # a connection for each call in flight
            http = HttpChannel(plan.address, chosen.path, chosen.response)
            stack.callback(http.close)
            calls.append(http)
        for _ in range(plan.connections if plan.protocol != "http" else 0):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(plan.address, options=options))
            calls.append(channel.unary_unary(chosen.path, response_deserializer=chosen.response))
            await channel.channel_ready()
        requests = list(enumerate(plan.requests))
        random.Random(plan.seed).shuffle(requests)
        begin = time.monotonic() + plan.warmup_s
        sender = _Sender(plan, calls, requests, record, begin=begin, end=begin + plan.duration_s)
        await (sender.open_loop() if plan.rate_hz else sender.closed_loop())
        record.client_cpu_s = time.process_time() - sender.cpu_at_begin
        record.measured_s = sender.last_answer - begin
    return record


class _Sender:
    def __init__(
        self,
        plan: Plan,
        calls: Sequence[grpc.aio.UnaryUnaryMultiCallable[bytes, Any] | HttpChannel],
        requests: list[tuple[int, bytes]],
        record: Record,
        *,
        begin: float,
        end: float,
    ) -> None:
        self._plan, self._calls, self._requests, self._record = plan, calls, requests, record
        self._told = call_of(plan.protocol, plan.shape).told
        self._begin, self._end = begin, end
        self._next = 0
        self.last_answer = begin
        self.cpu_at_begin = time.process_time()

    async def closed_loop(self) -> None:
        async def caller(at: int) -> None:
            while (now := time.monotonic()) < self._end:
                await self._send(now, at)

        await asyncio.gather(*(caller(at) for at in range(self._plan.concurrency)))

    async def open_loop(self) -> None:
        gaps = random.Random(self._plan.seed + 1)
        assert self._plan.rate_hz
        due, calls = time.monotonic(), list[asyncio.Task[None]]()
        while due < self._end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            calls.append(asyncio.create_task(self._send(due, len(calls))))
            due += gaps.expovariate(self._plan.rate_hz)
        await asyncio.gather(*calls)

    async def _send(self, due: float, connection: int) -> None:
        number, request = self._requests[self._next % len(self._requests)]
        self._next += 1
        if due < self._begin:
            self.cpu_at_begin = time.process_time()
        code, response = "OK", None
        try:
            call = self._calls[connection % len(self._calls)]
            response = await call(request, timeout=self._plan.deadline_s, metadata=self._plan.metadata)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        except HttpFailed as error:
            code = error.code
        now = time.monotonic()
        self._record.sent += 1
        told = None if response is None else self._told(response)
        if told is not None and self._begin <= now < self._end:
            self._record.answered += 1
            self._record.answered_tokens += told.tokens
        if due < self._begin:
            return
        self.last_answer = max(self.last_answer, now)
        self._record.latency_s.append(now - due)
        self._record.codes.append(code)
        self._record.numbers.append(number)
        if isinstance(response, scoring_pb2.RerankResponse):
            self._record.rankings.append(tuple(found.index for found in response.results))
            self._record.unscored.append(response.unscored)
        else:
            self._record.rankings.append(())
        if told is not None:
            self._record.tokens.append(told.tokens)
            self._record.padded_tokens.append(told.padded_tokens)
            self._record.queue_s.append(told.queue_s)
            self._record.compute_s.append(told.compute_s)
