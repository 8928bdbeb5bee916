"""`pairwire embed`: a vector for each text."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, records

if TYPE_CHECKING:
    from pairwire.client.results import VectorArray

DETAILS = """

Texts as arguments, or one a line: plain, or JSON ("a" or {"text": "a"}).
One line of output a text: its numbers with spaces between; or, in a file for numpy, an array [texts, dimensions]:
float32, or what --encoding says, where binary has a byte for 8 dimensions. Sparse encoders: `pairwire embed-sparse`."""

DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "binary": "|u1"}
"""By encoding, as numpy writes them."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "embed", "turn texts into vectors with a bi-encoder", DETAILS)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to embed")
    arguments.add_input(parser, ("jsonl", "text"), "jsonl or text")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help='print {"index": 0, "embedding": [...]} a line')
    form.add_argument("-o", "--output", metavar="FILE.npy", type=Path, help="write the vectors there, print nothing")
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=False)
    arguments.add_vectors(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embeds and prints, or writes, as the input is read."""
    from pairwire.client.inputs import EmbedOptions

    from . import output
    from .backend import open_backend
    from .failures import naming_lines

    source = records.single(args)
    options = EmbedOptions(
        **arguments.reading(args), dimensions=args.dimensions, normalize=args.normalize or None, encoding=args.encoding
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


def _writer(args: argparse.Namespace) -> AbstractContextManager[Callable[[VectorArray], None]]:
    from . import output
    from .npy import open_npy

    if args.output is not None:
        return open_npy(args.output, DTYPES[args.encoding])
    start = 0

    def write(vectors: VectorArray) -> None:
        nonlocal start
        for row in vectors.astype(DTYPES[args.encoding]):
            if args.json:
                numbers = output.shorts(row) if row.dtype.kind == "f" else row.tolist()
                print(output.json_line({"index": start, "embedding": numbers}))
            else:
                print(" ".join(row.astype(str)))
            start += 1

    return nullcontext(write)
