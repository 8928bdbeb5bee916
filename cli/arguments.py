"""Arguments that several commands share, declared once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from . import exits

DEFAULT_ADDRESS = "localhost:50051"
ADDRESS_VARIABLE = "PAIRWIRE_ADDRESS"
API_KEY_VARIABLE = "PAIRWIRE_API_KEY"

Subparsers = argparse._SubParsersAction  # argparse has no public name for it


def add_command(
    subparsers: Subparsers[argparse.ArgumentParser], name: str, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """A subcommand whose help ends with the exit codes."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{details}",
        epilog=exits.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_connection(parser: argparse.ArgumentParser, *, local: bool) -> None:
    """Where the work is done: a server, or, for commands that have texts (``local``), this process."""
    group = parser.add_argument_group("where")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--address",
        metavar="HOST:PORT",
        default=os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS),
        help=f"the server (default: ${ADDRESS_VARIABLE}, or else {DEFAULT_ADDRESS})",
    )
    if local:
        where.add_argument("--local", metavar="DIR", type=Path, help="no server: load this model package here")
        group.add_argument(
            "--priority",
            choices=["low", "normal", "high"],
            help="what to overtake in the server's queue (default: normal); low is for work that nobody watches",
        )
    group.add_argument(
        "--timeout", metavar="SECONDS", type=_positive, default=60.0, help="most time for a request (default: 60)"
    )
    group.add_argument("--tls", action="store_true", help="use TLS, trusting the public certificate authorities")
    group.add_argument("--ca-file", metavar="PEM", type=Path, help="use TLS, trusting these certificate authorities")
    group.add_argument("--cert-file", metavar="PEM", type=Path, help="the client's certificate chain (mutual TLS)")
    group.add_argument("--key-file", metavar="PEM", type=Path, help="the key of --cert-file")
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        type=Path,
        help=f"file with the API key for the server (default: the key in ${API_KEY_VARIABLE}, or else none)",
    )


def add_input(parser: argparse.ArgumentParser, formats: tuple[str, ...], help_format: str) -> None:
    """A file instead of arguments."""
    parser.add_argument(
        "-i",
        "--input",
        metavar="FILE",
        type=Path,
        help="read lines from FILE ('-', and the default without texts: stdin)",
    )
    parser.add_argument("--format", choices=formats, help=f"of the lines (default: by the first one). {help_format}")


def add_reading(parser: argparse.ArgumentParser, *, pairs: bool) -> None:
    """How the model reads the texts."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", default="", help="needed only where several models fit")
    group.add_argument(
        "--max-length", metavar="TOKENS", type=_count, help="cut inputs at this many tokens, not the model's"
    )
    prompts = group.add_mutually_exclusive_group()
    place = "every first text (of a model with a template: its instruction)" if pairs else "every text"
    prompts.add_argument("--prompt-name", metavar="NAME", help=f"the checkpoint's prompt to put before {place}")
    prompts.add_argument("--prompt", metavar="TEXT", help="the prompt itself; '' for none at all")
    choices = ["longest_first", "only_first", "only_second", "error"] if pairs else ["longest_first", "error"]
    group.add_argument("--truncation", choices=choices, help="what to do with longer inputs (default: longest_first)")
    group.add_argument(
        "--truncation-direction", choices=["right", "left"], help="which end to cut off (default: the model's own)"
    )
    if pairs:
        group.add_argument(
            "--activation",
            choices=["identity", "sigmoid", "softmax"],
            help="logits to scores (default: the model's own)",
        )


def add_vectors(parser: argparse.ArgumentParser) -> None:
    """What becomes of dense vectors."""
    group = parser.add_argument_group("vectors")
    group.add_argument(
        "--dimensions", metavar="N", type=_count, help="keep the first N numbers of each (Matryoshka models)"
    )
    group.add_argument("--normalize", action="store_true", help="make each of unit length, after the cut")
    group.add_argument(
        "--encoding",
        choices=["float32", "float16", "int8", "binary"],
        default="float32",
        help="what the numbers are (default: float32). int8 has fixed ranges, from the package: compare by cosine. "
        "binary has a bit a number, 1 above 0, most significant first: compare by Hamming distance",
    )


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_reading` and `add_connection` were given that every kind of options has."""
    names = ("model", "prompt_name", "prompt", "truncation", "truncation_direction", "max_length", "priority")
    return {name: getattr(args, name) for name in names}


def add_json(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Output for programs."""
    parser.add_argument("--json", action="store_true", help=help_text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _count(text)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value
