"""Runs real clients against a real server, each in an environment of its own: ``python -m tests.clients [NAME ...]``.

Needs a package index. First a client runs its snippets of docs/clients.md, then its script.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.served import served
from tests.clients.table import CLIENTS, Client

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "clients.md"
HTTP, GRPC = "http://localhost:8080", "localhost:50051"
"""What the snippets say; replaced by where the server is."""
_SNIPPET = re.compile(r"<!-- client: (\S+) -->\n```(?:python|js)\n(.*?)```", re.DOTALL)
_LIMIT_S = 600


def snippets(name: str) -> list[str]:
    """What docs/clients.md says of a client."""
    text = DOCS.read_text(encoding="utf-8") if DOCS.is_file() else ""
    return [code for client, code in _SNIPPET.findall(text) if client == name]


def prepare(client: Client, where: Path) -> list[str]:
    """An environment with the client in it; returns the command that runs scripts."""
    if client.kind == "node":
        command = ["npm", "install", "--no-fund", "--no-audit", "--silent", *client.requirements]
        subprocess.run(command, cwd=where, check=True, timeout=_LIMIT_S)
        return ["node"]
    subprocess.run([sys.executable, "-m", "venv", where / "venv"], check=True, timeout=_LIMIT_S)
    python = str(where / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *client.requirements]
    subprocess.run(pip, check=True, timeout=_LIMIT_S, stderr=subprocess.DEVNULL)
    return [python]


def run(client: Client, http: str, grpc: str, expected: Path) -> str:
    """Why the client does not work; empty where it does."""
    if client.kind == "node" and not shutil.which("npm"):
        return "skipped: there is no npm"
    with tempfile.TemporaryDirectory(prefix=f"client-{client.name}-") as directory:
        where = Path(directory)
        try:
            command = prepare(client, where)
        except subprocess.SubprocessError as error:
            return f"cannot be installed: {error}"
        own = {"PAIRWIRE_HTTP": http, "PAIRWIRE_GRPC": grpc, "PAIRWIRE_EXPECTED": str(expected)}
        environment = os.environ | own | {"HAYSTACK_TELEMETRY_ENABLED": "False"}
        environment.pop("HF_HUB_OFFLINE", None)  # with it, Hugging Face's client refuses any address
        suffix = ".mjs" if client.kind == "node" else ".py"
        scripts = []
        for at, code in enumerate(snippets(client.name)):
            scripts.append(where / f"snippet{at}{suffix}")
            scripts[-1].write_text(code.replace(HTTP, http).replace(GRPC, grpc), encoding="utf-8")
        scripts.append(where / f"script{suffix}")  # beside node_modules, which node looks for from here
        scripts[-1].write_text((HERE / client.script).read_text(encoding="utf-8"), encoding="utf-8")
        for script in scripts:
            done = subprocess.run(
                [*command, str(script)], cwd=where, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
            )
            if done.returncode:
                return f"{script.name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return ""


def main() -> int:
    """The exit code: 1 where a client does not work."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(each.name for each in CLIENTS)} (default: all)")
    chosen = parser.parse_args().names
    if unknown := set(chosen) - {each.name for each in CLIENTS}:
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    failures = []
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="clients-") as directory:
        where = Path(directory)
        with served(where, "--http-port", str(port)) as grpc:
            for client in CLIENTS:
                if chosen and client.name not in chosen:
                    continue
                failure = run(client, f"http://127.0.0.1:{port}", grpc, where / "expected.json")
                skipped = failure.startswith("skipped")
                print(f"{client.name:24} {failure if skipped else 'FAILED' if failure else 'works'}", flush=True)
                if failure and not skipped:
                    print(failure, flush=True)
                    failures.append(client.name)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
