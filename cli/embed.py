"""`pairwire embed`: a vector for each text."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, records
from .exits import BadInput

if TYPE_CHECKING:
    from pairwire.client.results import Float32Array

DETAILS = """

Texts as arguments, or one a line: plain, or JSON ("a" or {"text": "a"}).
One line of output a text: its numbers with spaces between; or, in a file for numpy, float32 [texts, dimensions]."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "embed", "turn texts into vectors with a bi-encoder", DETAILS)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to embed")
    arguments.add_input(parser, ("jsonl", "text"), "jsonl or text")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help='print {"index": 0, "embedding": [...]} a line')
    form.add_argument("-o", "--output", metavar="FILE.npy", type=Path, help="write the vectors there, print nothing")
    parser.add_argument("--prompt-name", metavar="NAME", help="the checkpoint's prompt to put before every text")
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embeds and prints, or writes, as the input is read."""
    from pairwire.client.inputs import EmbedOptions

    from . import output
    from .backend import open_backend
    from .failures import naming_lines

    if args.texts and args.input is not None:
        raise BadInput("texts as arguments and --input: give one of them")
    source = records.given(args.texts) if args.texts else records.texts(args.input, args.format)
    options = EmbedOptions(
        model=args.model,
        prompt_name=args.prompt_name,
        truncation=args.truncation,
        max_length=args.max_length,
        priority=args.priority,
    )
    with (
        open_backend(args) as backend,
        output.progress(" texts", source.total, printing=args.output is None) as advance,
        naming_lines(source.lines),
        _writer(args) as write,
    ):
        for result in backend.embed(source.records, options):
            write(result.embeddings)
            advance(len(result))
    return 0


def _writer(args: argparse.Namespace) -> AbstractContextManager[Callable[[Float32Array], None]]:
    from . import output
    from .npy import open_npy

    if args.output is not None:
        return open_npy(args.output)
    start = 0

    def write(vectors: Float32Array) -> None:
        nonlocal start
        for row in vectors:
            if args.json:
                print(output.json_line({"index": start, "embedding": output.shorts(row)}))
            else:
                print(" ".join(row.astype(str)))
            start += 1

    return nullcontext(write)
