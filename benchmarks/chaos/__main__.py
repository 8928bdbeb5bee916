"""A server under mixed load from several processes while it is killed, hung, drained, flooded and left.

The schedule is seeded. Afterwards the books are checked: every request has exactly one outcome, every answered score is
right, everything else was refused with a reason, and memory, threads and files are back. Exit code 1 where not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import onnx
from tokenizers import Tokenizer

from pairwire.server.engine import Engine, EngineConfig
from pairwire.server.package import TOKENIZER_FILE, read_package, sha256_of, write_manifest

from .books import add_up, faults_of, faults_of_counters, table
from .client import Outcomes, Plan, run
from .faults import Fault, add_faults
from .server import Server, Usage

QUERY = "how do I bake bread without yeast"
_FORGOTTEN_S = 2.0
"""Of what a process counted before it was killed: it reports once a second."""
WORDS = tuple("the quick brown fox bakes bread and mixes flour with water while prices rose in the park".split())  # noqa: SIM905


def main(arguments: list[str] | None = None) -> int:
    """Runs it; the exit code."""
    args = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        package = args.package if args.has_faults else with_faults(args.package, Path(directory) / "package")
        return asyncio.run(_run(args, package))


def with_faults(package: Path, copy: Path) -> Path:
    """A copy of a package of one cross-encoder, whose best CPU variant has all faults."""
    shutil.copytree(package, copy)
    read = read_package(copy)
    variant = read.variant()
    tokenizer = Tokenizer.from_file(str(copy / TOKENIZER_FILE))
    ids = {fault: tokenizer.token_to_id(fault.value) for fault in Fault}
    if missing := [fault.value for fault, at in ids.items() if at is None]:
        raise SystemExit(f"{package}: the tokenizer has no token for {missing}; take another package")
    model = onnx.load(copy / variant.file)
    add_faults(model, ids)
    (copy / variant.file).write_bytes(model.SerializeToString())
    variant.sha256, variant.data_file = sha256_of(copy / variant.file), ""
    write_manifest(read.manifest, copy)
    return copy


async def _run(args: argparse.Namespace, package: Path) -> int:
    rng = random.Random(args.seed)
    documents = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 30))) for _ in range(50)]
    async with await Engine.open(package, config=EngineConfig(warmup_s=0.1)) as engine:
        scores = (await engine.rerank(QUERY, documents)).scores[:, 0].tolist()
    server = await Server.start(package, args.hang_timeout_s)
    try:
        address = f"127.0.0.1:{server.port}"
        expected = dict(zip(documents, scores, strict=True))
        plans = [
            Plan(address=address, query=QUERY, expected=expected, callers=args.callers, seed=args.seed + at)
            for at in range(args.clients)
        ]
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, ProcessPoolExecutor(args.clients, mp_context=context) as pool:
            stop = manager.Event()
            loop = asyncio.get_running_loop()
            runs = [loop.run_in_executor(pool, run, plan, stop) for plan in plans]
            await asyncio.sleep(min(2.0, args.seconds / 4))  # of load without harm
            before = server.usage()
            await server.torment(args.seconds, rng)
            stop.set()
            total = add_up(await asyncio.gather(*runs))
        recovered = await server.recovered()
        await asyncio.sleep(6 if args.seconds > 60 else 0)  # freed memory goes back by then
        after, counted = server.usage(), await server.counted()
        code = await server.stop()
    finally:
        if server.process.returncode is None:
            server.process.kill()
            await server.process.wait()
    found = list(faults_of(total, before, after, recovered=recovered, exit_code=code))
    deaths = server.events["kill"] + server.events["hang for good"]
    unsure = int(deaths * _FORGOTTEN_S * total.sent / args.seconds)
    found += faults_of_counters(total, counted, own=server.own_calls, unsure=unsure)
    print("counted by the server: " + ", ".join(f"{code} {count}" for code, count in sorted(counted.items())))
    _show(args, server, total, (before, after), found)
    return 1 if found else 0


def _show(
    args: argparse.Namespace, server: Server, total: Outcomes, usage: tuple[Usage, Usage], found: Sequence[str]
) -> None:
    rows = table(total)
    print(f"seed {args.seed}, {args.seconds:g} s, {args.clients} client processes of {args.callers} callers each")
    print("done to the server: " + ", ".join(f"{name} {count}" for name, count in sorted(server.events.items())))
    print(f"{total.sent} requests")
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if value))
    for reason, count in total.reasons.most_common(12):
        print(f"{count:7} {reason}")
    print(f"before {usage[0]}\nafter  {usage[1]}")
    print("\n".join(f"WRONG: {each}" for each in found) or "the books balance")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, default=Path("models/demo"), metavar="DIR", help="of a cross-encoder")
    parser.add_argument("--has-faults", action="store_true", help="its graph has the faults already")
    parser.add_argument("--seconds", type=float, default=300.0, help="of harm; default 300")
    parser.add_argument("--clients", type=int, default=3, help="client processes; default 3")
    parser.add_argument("--callers", type=int, default=4, help="callers in each; default 4")
    parser.add_argument("--hang-timeout-s", type=float, default=2.0, help="of the server; default 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
