"""`pairwire embed-sparse`: for each text the tokens that have weight."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import arguments, records

if TYPE_CHECKING:
    from pairwire.client.results import SparseEmbedResult

DETAILS = """

Texts as arguments, or one a line: plain, or JSON ("a" or {"text": "a"}).
One line of output a text: id:weight with spaces between, by ascending id. An id is that of a token of the vocabulary,
and a dimension of the vector."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(
        subparsers, "embed-sparse", "turn texts into sparse vectors with a sparse encoder (SPLADE)", DETAILS
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to embed")
    arguments.add_input(parser, ("jsonl", "text"), "jsonl or text")
    arguments.add_json(parser, 'print {"index": 0, "indices": [...], "values": [...]} a line')
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=False)
    parser.add_argument(
        "--max-active-dims",
        metavar="N",
        type=arguments.count,
        help="keep the N largest weights of each text (default: what the model does, which may be all)",
    )
    parser.add_argument(
        "--input-type",
        choices=["query", "document"],
        help="what the texts are, to a model that looks queries up in a table (default: what the model does)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Embeds and prints, as the input is read."""
    from pairwire.client.inputs import SparseOptions

    from . import output
    from .backend import open_backend
    from .failures import naming_lines

    source = records.single(args)
    options = SparseOptions(**arguments.reading(args), max_active_dims=args.max_active_dims, input_type=args.input_type)
    start = 0
    with open_backend(args) as backend, output.progress(" texts", source.total) as advance, naming_lines(source.lines):
        for result in backend.embed_sparse(source.records, options):
            for index, (indices, values) in enumerate(_numbers(result), start):
                if args.json:
                    print(output.json_line({"index": index, "indices": indices, "values": values}))
                else:
                    print(" ".join(f"{at}:{value}" for at, value in zip(indices, values, strict=True)))
            start += len(result)
            advance(len(result))
    return 0


def _numbers(result: SparseEmbedResult) -> Iterator[tuple[list[int], list[float]]]:
    from . import output

    for indices, values in result.rows():
        yield indices.tolist(), output.shorts(values)
