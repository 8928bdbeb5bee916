"""The largest requests there may be, several at once: what others see meanwhile, the server's memory, and cancelling.

A small caller sends a pair now and then: alone, and beside the large requests. These are cancelled in the end;
``idle_after_s`` is how long the server went on working after that.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil

from pairwire.v1 import scoring_pb2
from pairwire.v1.scoring_pb2_grpc import ScoringServiceStub

from ..datasets import Pair
from ..load_client import Plan
from ..serving import Server
from .sending import CALLER_KEY, Row, latencies, percentiles, plan, requests_of, run, told

COLUMNS = ("beside", "calls", "codes", "p50_ms", "p99_ms", "peak_mib", "large_codes", "idle_after_s")
_SMALL_HZ = 20.0
_LOOK_S = 0.1
_IDLE_CPUS = 0.2
_LONGEST_S = 120.0


def large(args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> list[Row]:
    """A row for the small caller alone, and one beside the large requests."""

    def small() -> Plan:
        requests = requests_of(fresh, int(1.5 * _SMALL_HZ * (args.duration + args.warmup)) + 10, 1)
        return plan(args, server, requests, rate_hz=_SMALL_HZ, caller="small", deadline_s=30.0)

    process = psutil.Process(server.pid)
    run([plan(args, server, requests_of(fresh, 100, 32), concurrency=8, caller="warm-up")])
    with _Peak(process) as quiet:
        alone = run([small()])
    attack = _Attack(args, server, fresh)
    with _Peak(process) as peak, attack:
        beside = run([small()])
    rows: list[Row] = []
    for name, records, memory in (("-", alone, quiet), ("large requests", beside, peak)):
        codes = Counter(records[0].codes)
        found = percentiles("", latencies(records, failed=False))
        rows.append({"beside": name, "calls": codes.total(), "codes": told(codes), **found, "peak_mib": memory.mib})
    rows[1] |= {"large_codes": told(attack.codes), "idle_after_s": _until_idle(process)}
    return rows


class _Attack:
    """Keeps so many of the requests under way; at the end they are cancelled."""

    def __init__(self, args: argparse.Namespace, server: Server, fresh: Iterator[Pair]) -> None:
        text = " ".join(next(fresh)[1] for _ in range(200))
        size = int(args.kilobytes * 1000)
        while len(text) < 2 * size:
            text += text
        self._texts = [f"{at} {text[at % size : at % size + size]}"[:size] for at in range(args.documents)]
        self._at_once = args.at_once
        self._address = server.address
        self._calls: set[grpc.Future] = set()  # type: ignore[type-arg]
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(args.at_once)
        self.codes: Counter[str] = Counter()

    def __enter__(self) -> None:
        self._channel = grpc.insecure_channel(self._address, options=[("grpc.max_send_message_length", -1)])
        for number in range(self._at_once):
            self._pool.submit(self._send, number)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for call in list(self._calls):
            call.cancel()
        self._pool.shutdown(wait=True)
        self._channel.close()

    def _send(self, number: int) -> None:
        scoring = ScoringServiceStub(self._channel)
        request = scoring_pb2.RerankRequest(query=f"query {number}", documents=self._texts)
        while not self._over.is_set():
            call = scoring.Rerank.future(request, timeout=_LONGEST_S, metadata=((CALLER_KEY, "large"),))
            self._calls.add(call)
            code = call.code()  # waits for it
            self._calls.discard(call)
            if not self._over.is_set():
                self.codes[code.name] += 1
                self._over.wait(_LOOK_S)


class _Peak:
    """The most memory that a process has while the block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.mib = max(self.mib, self._process.memory_info().rss >> 20)


def _until_idle(process: psutil.Process) -> float:
    """Seconds until the process uses hardly any CPU."""
    began = time.monotonic()
    while time.monotonic() < began + _LONGEST_S:
        before, at = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(_LOOK_S)
        if sum(process.cpu_times()[:2]) - before < _IDLE_CPUS * (time.monotonic() - at):
            return at - began  # when it began to be idle
    return float("inf")
