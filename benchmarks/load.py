"""Load test of a running server: ``python -m benchmarks.load --package models/demo --dataset stsb --data DIR``.

Closed loop (``--concurrency N``: N calls always in flight) tells the capacity; open loop (``--rate R``: Poisson
arrivals, latency counted from when a call was due) tells what clients of a busy server see. Clients run in processes of
their own.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from . import load_client
from .datasets import Pair, load_pairs, read_pairs
from .protocols import PROTOCOLS, SHAPES, call_of
from .report import print_machine, print_table, write_json
from .serving import Server, serving

COLUMNS = (
    "dataset",
    "protocol",
    "shape",
    "pairs_per_request",
    "load",
    "server_processes",
    "connections",
    "calls",
    "errors",
    "pairs_per_s",
    "tokens_per_s",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "p99_9_ms",
    "queue_p50_ms",
    "compute_p50_ms",
    "padding",
    "server_cpus",
    "server_ms_per_call",
    "client_cpus",
)


def main() -> None:
    """Runs every combination of the given loads and request sizes, and prints one row each."""
    args = _arguments()
    pairs = read_pairs(args.pairs_file) if args.pairs_file else load_pairs(args.dataset, args.data, args.limit)
    print_machine()
    loads: list[tuple[str, int, float | None]] = [(f"{n} in flight", n, None) for n in args.concurrency]
    loads += [(f"{rate:g}/s Poisson", 0, rate) for rate in args.rate]
    rows = []
    with _server(args) as server:
        for size in (min(size, len(pairs)) for size in args.pairs):
            for name, concurrency, rate in loads:
                for protocol in args.protocol * args.rounds:
                    requests = build_requests(args.shape, pairs, size, args.model, protocol)
                    row = _measure(args, server, protocol, requests, size, concurrency, rate)
                    dataset = args.pairs_file.name if args.pairs_file else args.dataset
                    setting = {"dataset": dataset, "protocol": protocol, "shape": args.shape}
                    scale = {"server_processes": args.server_processes}
                    scale["connections"] = args.processes * args.connections
                    rows.append(setting | {"pairs_per_request": size, "load": name} | scale | row)
    print_table(rows, COLUMNS)
    write_json(args.json, rows)


def build_requests(shape: str, pairs: Sequence[Pair], size: int, model: str, protocol: str = "pairwire") -> list[bytes]:
    """Serialised requests of ``size`` pairs (documents, texts) each; a smaller rest is left out unless it is all."""
    chunks = [pairs[at : at + size] for at in range(0, len(pairs), size)]
    if len(chunks) > 1 and len(chunks[-1]) < size:
        chunks.pop()
    build = call_of(protocol, shape).request
    return [build(chunk, model).SerializeToString() for chunk in chunks]


def _measure(
    args: argparse.Namespace,
    server: Server,
    protocol: str,
    requests: list[bytes],
    size: int,
    concurrency: int,
    rate: float | None,
) -> dict[str, object]:
    processes = min(args.processes, concurrency) if concurrency else args.processes
    plans = [
        load_client.Plan(
            address=server.http if protocol == "http" else server.address,
            protocol=protocol,
            shape=args.shape,
            requests=requests,
            concurrency=concurrency // processes + (at < concurrency % processes),
            rate_hz=rate / processes if rate else None,
            connections=args.connections,
            warmup_s=args.warmup,
            duration_s=args.duration,
            deadline_s=args.deadline,
            seed=args.seed * 1000 + at,
        )
        for at in range(processes)
    ]
    cpu_before = _cpu_s(server.pid)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        records = pool.map(load_client.run, plans, chunksize=1)
    # The server's CPU seconds include the warm-up, so they are spread over it too.
    used_s = _cpu_s(server.pid) - cpu_before
    server_cpus = used_s / (args.warmup + max(record.measured_s for record in records))
    row = summarise(records, size, args.duration)
    sent = sum(record.sent for record in records)
    return row | {"server_cpus": server_cpus, "server_ms_per_call": used_s / sent * 1e3}


def summarise(records: Sequence[load_client.Record], pairs_per_request: int, duration_s: float) -> dict[str, object]:
    """One row: rates of what was answered in the window, percentiles of calls that were due in it and answered OK."""
    codes = Counter(code for record in records for code in record.codes)
    latency = np.array(
        [s for record in records for s, code in zip(record.latency_s, record.codes, strict=True) if code == "OK"]
    )
    tokens = sum(sum(record.tokens) for record in records)
    padded = sum(sum(record.padded_tokens) for record in records)
    queue = [s for record in records for s in record.queue_s]
    compute = [s for record in records for s in record.compute_s]
    failed = {code: count for code, count in codes.items() if code != "OK"}
    row: dict[str, object] = {
        "calls": codes.total(),
        "errors": ", ".join(f"{code} {count}" for code, count in failed.items()) or "0",
        "pairs_per_s": sum(record.answered for record in records) * pairs_per_request / duration_s,
        "tokens_per_s": sum(record.answered_tokens for record in records) / duration_s,
        "padding": padded / (tokens + padded) if tokens else None,
        "client_cpus": sum(record.client_cpu_s / record.measured_s for record in records),
    }
    if len(latency):
        for name, share in (("p50", 50), ("p95", 95), ("p99", 99), ("p99_9", 99.9)):
            row[f"{name}_ms"] = float(np.percentile(latency, share)) * 1e3
        row["queue_p50_ms"] = float(np.median(queue)) * 1e3
        row["compute_p50_ms"] = float(np.median(compute)) * 1e3
    return row


def _cpu_s(pid: int) -> float:
    if not pid:
        return float("nan")
    server = psutil.Process(pid)
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[Server]:
    if args.address:
        yield Server(address=args.address, pid=args.server_pid, http=args.http_address)
        return
    http = ["--http-port", "0"] if "http" in args.protocol else []
    with serving(args.package, ["--processes", str(args.server_processes), *http, *args.serve_option]) as server:
        yield server


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--package", type=Path, action="append", help="serve this package for the test (repeatable)")
    where.add_argument("--address", help="HOST:PORT of a server that runs already")
    parser.add_argument("--http-address", default="", help="with --address and --protocol http: HOST:PORT of HTTP")
    parser.add_argument("--server-pid", type=int, default=0, help="with --address: measure this process's CPU")
    parser.add_argument(
        "--serve-option", action="append", default=[], help="passed on to `pairwire serve` (repeatable)"
    )
    parser.add_argument(
        "--server-processes", type=int, default=1, help="pairwire serve --processes (default 1); wants --connections"
    )
    parser.add_argument("--model", default="", help="model name, where several are served")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        nargs="+",
        default=["pairwire"],
        help="asked in it (default pairwire); of several, one after the other",
    )
    parser.add_argument("--rounds", type=int, default=1, help="measure all protocols this many times, in turn")
    parser.add_argument("--shape", choices=SHAPES, default="score")
    parser.add_argument("--dataset", default="builtin", help="builtin, stsb, qnli, xquad or scifact (default builtin)")
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--pairs-file", type=Path, help="two tab-separated texts a line, instead of a data set")
    parser.add_argument("--limit", type=int, default=2048, help="sample at most N pairs (default 2048)")
    parser.add_argument("--pairs", type=int, nargs="+", default=[32], help="pairs a request (default 32)")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[], help="closed loop: calls in flight")
    parser.add_argument("--rate", type=float, nargs="*", default=[], help="open loop: calls a second")
    parser.add_argument("--processes", type=int, default=1, help="client processes (default 1)")
    parser.add_argument("--connections", type=int, default=1, help="of each client process (default 1)")
    parser.add_argument("--duration", type=float, default=10.0, help="measured seconds (default 10)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that are not counted (default 2)")
    parser.add_argument("--deadline", type=float, default=30.0, help="deadline of a call in seconds (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    if not args.concurrency and not args.rate:
        args.concurrency = [8]
    return args


if __name__ == "__main__":
    main()
