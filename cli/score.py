"""`pairwire score`: a number for each pair of texts."""

from __future__ import annotations

import argparse

from . import arguments, records
from .exits import BadInput

DETAILS = """

Texts as arguments: the first is scored with each of the others. Otherwise one pair a line:
  JSON   ["a", "b"]  {"first": "a", "second": "b"}  {"query": "a", "document": "b"}
  TSV    a<TAB>b
One line of output a pair, in input order: the score, or one score a label with tabs between."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "score", "score pairs of texts with a cross-encoder", DETAILS)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="two texts, or one and several to score it with")
    arguments.add_input(parser, ("jsonl", "tsv"), "jsonl or tsv")
    arguments.add_json(parser, 'print {"index": 0, "score": 0.5} a line ("scores" by label where there are several)')
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scores and prints, as the input is read."""
    from pairwire.client.inputs import ScoreOptions

    from . import output
    from .backend import open_backend
    from .failures import naming_lines

    source = _source(args)
    options = ScoreOptions(**arguments.reading(args), activation=args.activation)
    start = 0
    with open_backend(args) as backend, output.progress(" pairs", source.total) as advance, naming_lines(source.lines):
        for result in backend.score(source.records, options):
            rows = result.scores.reshape(len(result), -1)
            if args.json:
                truncated = set(result.usage.truncated_inputs)
                for index, row in enumerate(rows, start):
                    print(output.json_line(_record(index, output.shorts(row), result.labels, index in truncated)))
            else:
                print("\n".join("\t".join(f"{score:.6f}" for score in row) for row in rows))
            start += len(result)
            advance(len(result))
    return 0


def _source(args: argparse.Namespace) -> records.Source[tuple[str, str]]:
    if not args.texts:
        return records.pairs(args.input, args.format)
    if args.input is not None:
        raise BadInput("texts as arguments and --input: give one of them")
    if len(args.texts) < 2:
        raise BadInput("one text is no pair: give at least two")
    return records.from_arguments([(args.texts[0], other) for other in args.texts[1:]])


def _record(index: int, scores: list[float], labels: tuple[str, ...], truncated: bool) -> dict[str, object]:
    record: dict[str, object] = {"index": index}
    if len(labels) == 1:
        record["score"] = scores[0]
    else:
        record["scores"] = dict(zip(labels, scores, strict=True))
    if truncated:
        record["truncated"] = True
    return record
