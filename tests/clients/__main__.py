"""Runs clients against one server, each in an environment of its own: ``python -m tests.clients [NAME ...]``.

Environments are made in ``.clients/`` and kept; they need the network, or pip's cache, once. A client whose wheel there
is none of for this system is skipped with the reason, unless the variable of the table names its program.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.serving import Server

from .client import Client
from .served import served
from .snippets import Snippet, snippets
from .table import CLIENTS

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENTS = ROOT / ".clients"
SCRIPTS = Path(__file__).parent / "scripts"
LIMIT_S = 300
OK, SKIPPED = "ok", "skipped"


def main() -> int:
    """Exit code 1 where a client failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="of clients (default: all): " + ", ".join(each.name for each in CLIENTS)
    )
    parser.add_argument("--serve-option", action="append", default=[], help="passed on to `pairwire serve`")
    args = parser.parse_args()
    known = {each.name: each for each in CLIENTS}
    if unknown := sorted(set(args.names) - known.keys()):
        parser.error(f"no client {', '.join(unknown)}; there is {', '.join(known)}")
    shown = snippets()
    results: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory, served(Path(directory), *args.serve_option) as server:
        for name in args.names or known:
            print(f"== {name}", flush=True)
            results[name] = _run(known[name], shown.get(name, []), server, Path(directory))
            print(f"   {results[name]}", flush=True)
    failed = [name for name, result in results.items() if result != OK and not result.startswith(SKIPPED)]
    print(
        f"{len(results) - len(failed)} of {len(results)} clients" + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return int(bool(failed))


def _run(client: Client, shown: list[Snippet], server: Server, directory: Path) -> str:
    """How it went, in a word or a sentence."""
    if not shown:
        return "docs/clients.md has no snippet of it"
    environment = ENVIRONMENTS / client.name
    if reason := _install_npm(client, environment) if client.npm else _install(client, environment):
        return f"{SKIPPED}: {reason}"
    bin_ = environment / "bin"
    variables = os.environ | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PAIRWIRE_SERVER": server.address,
        "PAIRWIRE_HTTP": f"http://{server.http}",
        "PAIRWIRE_EXPECTED": str(directory / "expected.json"),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
    variables.pop("HF_HUB_OFFLINE", None)  # with it, Hugging Face's client refuses every address
    interpreter = ["node", "--input-type=module", "-e"] if client.npm else [str(bin_ / "python"), "-c"]
    script = SCRIPTS / client.script
    runs = []
    if client.script:
        runs.append([*interpreter, script.read_text(encoding="utf-8")] if client.npm else [interpreter[0], str(script)])
    for snippet in shown:
        program = ["bash", "-c"] if snippet.language == "console" else interpreter
        runs.append([*program, snippet.at(server.address, server.http)])
    where = environment if client.npm else directory  # node looks for modules from where it is
    for command in runs:
        done = subprocess.run(
            command, env=variables, cwd=where, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if done.returncode:
            return f"exit code {done.returncode} of {command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return OK


def _install(client: Client, environment: Path) -> str:
    """Makes the environment unless it is there; why it cannot be made, or nothing."""
    if client.program and client.program in os.environ:
        environment.mkdir(parents=True, exist_ok=True)
        if not (environment / "bin" / "python").exists():
            venv.create(environment)
        return ""
    stamp, wanted = environment / ".installed", "\n".join(client.requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return ""
    venv.create(environment, clear=True, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile", *client.requirements]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        hint = f"; set {client.program} to a program that runs here" if client.program else ""
        return f"{lines[-1]}{hint}"
    stamp.write_text(wanted, encoding="utf-8")
    return ""


def _install_npm(client: Client, environment: Path) -> str:
    """The same, of npm's."""
    if shutil.which("npm") is None:
        return "there is no npm"
    environment.mkdir(parents=True, exist_ok=True)
    npm = ["npm", "install", "--no-fund", "--no-audit", "--silent", "--prefix", str(environment), *client.requirements]
    done = subprocess.run(npm, capture_output=True, text=True, check=False)
    return done.stderr[-500:] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
