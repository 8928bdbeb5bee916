"""How many servers a load takes: ``python -m benchmarks.sizing --package models/demo --load 1000 --p99-ms 200``.

What batches cost is measured on this machine, as a server does it when it starts, and memory on a real server. The rest
is computed: pairs a second and core by length from the cost table; and for a load, the fewest replicas with which 99 of
100 requests are answered in time, by the server's own scheduler in virtual time under Poisson arrivals.

It counts computing. Tokenising, gRPC and the network come on top (some per cent on a CPU, more on a GPU or for tiny
models), and neighbours that take CPUs: leave room, and check with ``benchmarks.load`` what one replica really does.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import numpy as np
import psutil

from pairwire.client import Client
from pairwire.server.config import RequestLimits, ServerConfig
from pairwire.server.engine import EngineConfig

from .batching import tables
from .batching.figures import figures
from .batching.rules import Pairwire
from .batching.simulation import simulate
from .batching.tables import Recording
from .batching.workload import calls_of, poisson
from .report import print_machine, print_table, write_json
from .serving import serving

COLUMNS = ("tokens", "pairs_per_s_core", "tokens_per_s_core", "alone_ms", "replicas", "busy", "p99_ms")
_FULLEST = 0.98
"""No queue is stable at all that the table says."""
_MIB = 1 << 20


def main() -> None:
    """Prints memory and one row a length."""
    args = _arguments()
    print_machine()
    recording = _recording(args)
    if args.cpus:
        recording = dataclasses.replace(recording, workers=args.cpus)
    kind = "measured on" if recording.measured else "NOT MEASURED:"
    print(f"costs: {recording.name}; {kind} {recording.about}")
    rows = [_row(args, recording, length) for length in args.tokens if length <= recording.max_length]
    if args.load:
        print(
            f"replicas of {recording.workers} CPUs for {args.load:g} pairs a second in requests of {args.pairs}, "
            f"p99 at most {args.p99_ms:g} ms ('-': one alone takes longer)"
        )
    print_table(rows, COLUMNS if args.load else COLUMNS[:4])
    memory: dict[str, object] = {}
    if args.package:
        height = _memory(args.package, args.variant)
        limit = _limit(height)
        print(f"memory of a process: {height / _MIB:.0f} MiB at its height; set its limit to {limit / _MIB:.0f} MiB")
        memory = {"memory_bytes": height, "limit_bytes": limit}
    write_json(args.json, [row | memory for row in rows])


def _row(args: argparse.Namespace, recording: Recording, length: int) -> dict[str, object]:
    capacity = _pairs_per_s(recording, length)
    row: dict[str, object] = {
        "tokens": length,
        "pairs_per_s_core": capacity / recording.workers,
        "tokens_per_s_core": capacity / recording.workers * length,
        "alone_ms": 1e3 * _alone(args, recording, length),
    }
    return row | (replicas(args, recording, length) if args.load else {})


def replicas(args: argparse.Namespace, recording: Recording, length: int) -> dict[str, object]:
    """The fewest with which the 99th percentile is met, what share of them is busy, and that percentile; or nothing."""
    if 1e3 * _alone(args, recording, length) > args.p99_ms:
        return {}
    capacity = _pairs_per_s(recording, length)
    enough = least = max(1, math.ceil(args.load / (_FULLEST * capacity)))
    while (p99_ms := _p99_ms(args, recording, length, enough)) > args.p99_ms:
        least, enough = enough + 1, 2 * enough
    while least < enough:
        middle = (least + enough) // 2
        if (found := _p99_ms(args, recording, length, middle)) > args.p99_ms:
            least = middle + 1
        else:
            enough, p99_ms = middle, found
    return {"replicas": enough, "busy": args.load / (enough * capacity), "p99_ms": p99_ms}


def _p99_ms(args: argparse.Namespace, recording: Recording, length: int, servers: int) -> float:
    """Of one of so many servers, each with its share of the load."""
    calls = calls_of([length] * args.pairs for _ in range(args.calls))
    load = poisson(args.calls, args.load / servers / args.pairs, args.seed)
    rule = Pairwire(recording, recording.workers)
    return figures(simulate(rule, calls, recording.truth(), workers=recording.workers, load=load))["p99_ms"]


def _alone(args: argparse.Namespace, recording: Recording, length: int) -> float:
    """Seconds of a request on an idle server."""
    (call,) = calls_of([[length] * args.pairs])
    trace = simulate(
        Pairwire(recording, recording.workers),
        [call],
        recording.truth(),
        workers=recording.workers,
        load=poisson(1, 1.0, args.seed),
    )
    return float((trace.finished - trace.arrived)[0])


def _pairs_per_s(recording: Recording, length: int) -> float:
    """By the cost table, with all workers busy."""
    ladder = recording.ladder()
    level = int(ladder.levels(np.array([length], np.int32))[0])
    return recording.workers / float(recording.engine_costs().row_seconds()[level])


def _memory(package: Path, variant: str) -> int:
    """Bytes of a server that has run its largest batches and answered a few long inputs: the most that it held."""
    options = ["--variant", variant] if variant else []
    with serving([package], options) as server, Client(server.address) as client:
        client.wait_until_ready()
        (model,) = client.models()
        text = "word " * 600
        for _ in range(4):
            if model.kind == "cross-encoder":
                client.score([(text, text)] * 32)
            elif model.kind == "bi-encoder":
                client.embed([text] * 32)
        return _height(server.pid)


def _height(pid: int) -> int:
    """Resident bytes at their most, where the system says; else now."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process(pid).memory_info().rss)


def _limit(height: int) -> int:
    """With all messages on their way and a full cache of token ids, rounded up to a quarter of a GiB."""
    most = height + ServerConfig().connections.max_inflight_bytes + EngineConfig().token_cache_bytes
    return math.ceil(most / (256 * _MIB)) * 256 * _MIB


def _recording(args: argparse.Namespace) -> Recording:
    if args.package:
        return tables.measure_package(args.package, args.variant, args.passes, args.budget_s)
    return tables.read(tables.shipped().get(args.costs, Path(args.costs)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--package", type=Path, help="model package to measure here and now")
    source.add_argument("--costs", help=f"a recorded table instead: {', '.join(tables.shipped())}, or a file")
    parser.add_argument("--variant", default="", help="the package's variant")
    parser.add_argument("--passes", type=int, default=2, help="how often to measure, of which the fastest counts")
    parser.add_argument("--budget-s", type=float, default=2.0, help="seconds of each measurement (three a pass)")
    parser.add_argument("--cpus", type=int, default=0, help="of a replica (default: those of this machine)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="lengths of a pair")
    parser.add_argument("--load", type=float, default=0, help="pairs a second that all replicas together must do")
    parser.add_argument("--pairs", type=int, default=20, help=f"of a request; at most {RequestLimits().max_items}")
    parser.add_argument("--p99-ms", type=float, default=200.0, help="99 of 100 requests must be answered by then")
    parser.add_argument("--calls", type=int, default=1000, help="requests of a simulation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
