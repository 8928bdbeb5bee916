"""The `pairwire` command: hands each subcommand to its room. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pairwire.export import cli as export
from pairwire.server import cli as serve

from . import (
    api_key,
    bulk,
    classify,
    doctor,
    embed,
    embed_sparse,
    exits,
    inspect,
    models,
    profile,
    rerank,
    score,
    streams,
    tune,
)
from .any_order import AnyOrderParser

COMMANDS = (
    export,
    serve,
    score,
    rerank,
    classify,
    embed,
    embed_sparse,
    bulk,
    models,
    inspect,
    tune,
    profile,
    doctor,
    api_key,
)
"""In the order of the help."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pairwire",
        description="Exports cross-encoders and bi-encoders, serves them, scores, ranks, classifies and embeds texts.",
        epilog=exits.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    _add_debug(parser, False)
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=AnyOrderParser
    )
    for command in COMMANDS:
        command.add_parser(subparsers)
    for subparser in _below(parser):
        _add_debug(subparser, argparse.SUPPRESS)  # else its default would undo what stands before the command
    return parser


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of commands, and of commands of commands."""
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:  # argparse has no public way to walk a parser
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found += [each, *_below(each)]
    return found


def _add_debug(parser: argparse.ArgumentParser, default: object) -> None:
    text = "print the traceback of what goes wrong, before the sentence"
    parser.add_argument("--debug", action="store_true", default=default, help=text)


class _ShowVersion(argparse.Action):
    """As argparse's own "version", which wants to know the version before anybody asks: that costs 30 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from importlib import metadata

        print(f"pairwire {metadata.version('pairwire')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    streams.prepare()
    args = build_parser().parse_args(argv)
    # gRPC's C core writes to stderr on its own; our own sentences report what matters. The user's setting wins.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return exits.run(lambda: int(args.run(args)), args)


if __name__ == "__main__":
    sys.exit(main())
