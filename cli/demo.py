"""`make demo`: export, serve, rank and stop, with the same commands and the same client that everybody has.

The package is made once, in `models/demo` below the current directory, and again when the adapter or Pairwire changes.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from . import exits
from .exits import CommandError

if TYPE_CHECKING:
    from pairwire.client import RerankResult

    from .showcase import Ranked

PACKAGE = Path("models/demo")
MADE_FROM = Path("models/demo.made-from.json")
"""Beside the package, which is immutable: what it was made from."""

REPEATS = 5


def main() -> int:
    """Runs the demo; returns its exit code."""
    return exits.run(run)


def run() -> int:
    """Exports where needed, serves, ranks the built-in queries, and stops the server.

    Raises:
        CommandError: a step failed; the sentence says which, and has the server's last lines.
    """
    from pairwire.server.package import read_package

    from .showcase import parity_line

    began = time.monotonic()
    with resources.as_file(resources.files("pairwire.export.demo")) as directory:
        origin = fingerprint(directory / "adapter")
        if is_current(origin):
            _step(f"the int8 package is there already: {PACKAGE} (remove it to see the export)")
        else:
            _step("exporting the demo cross-encoder to int8: about a minute, only the first time")
            export(directory / "adapter", origin)
        queries = read_queries(directory / "texts.json")
    _step("parity: does it still score like the original?")
    print(parity_line(read_package(PACKAGE).manifest), flush=True)
    serve_and_rank(queries)
    _step(f"done in {time.monotonic() - began:.1f} s; next, a page to try it in a browser:")
    program = Path(sys.executable).parent / "pairwire"
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    print(f"$ {shown} serve {PACKAGE} --http-port 8080", flush=True)
    print("and open http://127.0.0.1:8080/ (the README says what else there is)", flush=True)
    return 0


def fingerprint(adapter: Path) -> dict[str, str]:
    """What a package of the adapter is made from: sha256 over its files, and Pairwire's version.

    Raises:
        CommandError: the adapter is not there.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise CommandError(f"{adapter}: the demo's adapter is missing; install pairwire again")
    digest = hashlib.sha256()
    for path in sorted(adapter.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return {"adapter_sha256": digest.hexdigest(), "pairwire": metadata.version("pairwire")}


def is_current(origin: dict[str, str]) -> bool:
    """Whether a whole package of that origin is there."""
    from pairwire.server.errors import PackageInvalid
    from pairwire.server.package import read_package

    try:
        package = read_package(PACKAGE)
        for variant in package.manifest.variants:
            package.graph_file(variant)
        return bool(json.loads(MADE_FROM.read_text(encoding="utf-8")) == origin)
    except (PackageInvalid, OSError, ValueError):
        return False


def export(adapter: Path, origin: dict[str, str]) -> None:
    """Makes the package with `pairwire export`, whose progress is seen.

    Raises:
        CommandError: it failed; what it wrote is on the screen.
    """
    MADE_FROM.unlink(missing_ok=True)
    PACKAGE.parent.mkdir(parents=True, exist_ok=True)
    arguments = [
        "export",
        str(adapter),
        "-o",
        str(PACKAGE),
        "--precision",
        "int8",
        "--name",
        "demo",
        "--force",
        "--no-tune",
    ]
    print(f"$ {shlex.join(['pairwire', *arguments])}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pairwire.cli.main", *arguments], check=False)
    if done.returncode != 0:
        raise CommandError(f"the export failed with exit code {done.returncode}")
    MADE_FROM.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def read_queries(path: Path) -> list[tuple[str, list[str]]]:
    """The built-in queries, each with its documents."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [(entry["query"], entry["documents"]) for entry in found["queries"]]


def serve_and_rank(queries: list[tuple[str, list[str]]]) -> None:
    """Starts a server on a free loopback port, ranks through the gRPC client, stops the server.

    Raises:
        ServerFailed: the server does not start, or does not stop with exit code 0.
        pairwire.client.ClientError: a call failed.
    """
    from pairwire.client import Client

    from .server_process import ServerProcess
    from .showcase import ranking_table, summary

    _step(f"starting the server: pairwire serve {PACKAGE} --port 0")
    began = time.monotonic()
    with ServerProcess.serve([PACKAGE], "--metrics-port=-1") as server:
        with Client(server.address) as client:
            client.wait_until_ready()
            print(f"ready on {server.address} after {time.monotonic() - began:.1f} s", flush=True)
            _step("ranking through the gRPC client")
            rankings = [_rank(client.rerank, query, documents) for query, documents in queries]
            for ranked in rankings:
                print(f"{ranking_table(ranked)}\n", flush=True)
            # Every query with every document: no pair twice, as equal ones share a computation.
            bulk = [(query, document) for query, _ in queries for _, documents in queries for document in documents]
            print(summary(rankings, len(bulk), client.score(bulk).timing.elapsed_s), flush=True)
        _step("stopping the server: SIGTERM")
        server.stop()
        print("exit code 0", flush=True)


def _rank(rerank: Callable[[str, list[str]], RerankResult], query: str, documents: list[str]) -> Ranked:
    from .showcase import Ranked

    results = sorted((rerank(query, documents) for _ in range(REPEATS)), key=lambda result: result.timing.elapsed_s)
    return Ranked(query, results[REPEATS // 2])


def _step(title: str) -> None:
    print(f"\n== {title}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
