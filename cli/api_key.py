"""`pairwire api-key`: makes an API key. The key goes to stdout, once; the server's file gets its hash."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .arguments import Subparsers, add_command
from .exits import BadInput

_DETAILS = """

The key is written to stdout and stored nowhere. The line for the server's --api-keys FILE is appended to --file, or
written to stderr. Running servers read the file again within seconds; to take a key away, delete its line."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Registers ``api-key``."""
    parser = add_command(subparsers, "api-key", "make an API key for a server", _DETAILS)
    parser.add_argument(
        "name", metavar="NAME", help="who will use it: shown in logs and metrics, counted as one caller"
    )
    parser.add_argument(
        "--roles",
        default="infer",
        metavar="ROLES",
        help="what it may do, separated by commas: infer, operate, observe (default: infer)",
    )
    parser.add_argument(
        "--file", metavar="FILE", type=Path, help="append its line here; made, for you alone, if missing"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the key.

    Raises:
        BadInput: a name or roles that cannot be, or a file that cannot be written.
    """
    from pairwire.server.errors import ConfigInvalid
    from pairwire.server.security.keys import make_key
    from pairwire.server.security.roles import Role

    roles = [each.strip() for each in args.roles.split(",") if each.strip()]
    for each in roles:
        if each not in set(Role):
            raise BadInput(f"--roles: {each!r} is none of {', '.join(Role)}")
    try:
        key, identity = make_key(args.name, (Role(each) for each in roles))
    except ConfigInvalid as error:
        raise BadInput(str(error)) from error
    line = identity.to_line()
    if args.file is None:
        print(f"for the server's file of keys:\n{line}", file=sys.stderr)
    else:
        _append(args.file, line)
    print(key)
    return 0


def _append(path: Path, line: str) -> None:
    """In one write, so that a server reads it or does not."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            ends = size == 0 or file.read(1) == b"\n"
            file.write((b"" if ends else b"\n") + line.encode() + b"\n")
    except OSError as error:
        raise BadInput(f"--file {path}: cannot be written ({error.strerror})") from error
