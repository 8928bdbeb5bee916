"""How an example reaches its models: a server that runs already, or one of its own for as long as it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pairwire.cli.server_process import ServerFailed, ServerProcess
from pairwire.client import Client, ClientError

CROSS_ENCODER = Path("models/demo")
BI_ENCODER = Path("models/mini")
_EXPORT = "pairwire export {} -o {} --precision int8 --no-tune"
_MADE_FROM = {CROSS_ENCODER: "export/demo/adapter", BI_ENCODER: "sentence-transformers/all-MiniLM-L6-v2"}


def arguments(example: str, description: str | None, *, bi_encoder: bool = True) -> argparse.ArgumentParser:
    """A parser with the flags that all examples have; ``bi_encoder``: whether it needs one next to a cross-encoder."""
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{example}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="the folder of the data sets (default: built-in texts)"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="use this server, which has one model of each kind, and start none"
    )
    _add_package(parser, "--cross-encoder", CROSS_ENCODER)
    if bi_encoder:
        _add_package(parser, "--bi-encoder", BI_ENCODER)
    return parser


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Client]:
    """A client of ``args.address``, or of a server of our own over the packages; stops that server in the end.

    Raises:
        SystemExit: a package is not there, or the server or a call failed; the sentence says which and why.
    """
    try:
        if args.address is not None:
            with _ready(args.address) as client:
                yield client
            return
        packages = [getattr(args, kind) for kind in ("cross_encoder", "bi_encoder") if hasattr(args, kind)]
        for package in packages:
            _check(package)
        with ServerProcess.serve(packages, "--metrics-port=-1") as server, _ready(server.address) as client:
            yield client
    except (ServerFailed, ClientError) as error:
        raise SystemExit(str(error)) from error


@contextmanager
def _ready(address: str) -> Iterator[Client]:
    with Client(address) as client:
        client.wait_until_ready()
        yield client


def _add_package(parser: argparse.ArgumentParser, flag: str, default: Path) -> None:
    parser.add_argument(
        flag, metavar="DIR", type=Path, default=default, help=f"its package, to serve (default: {default})"
    )


def _check(package: Path) -> None:
    if not (package / "manifest.json").is_file():
        command = _EXPORT.format(_MADE_FROM.get(package, "CHECKPOINT"), package)
        raise SystemExit(f"{package}: no model package is there; make one with: {command}")
