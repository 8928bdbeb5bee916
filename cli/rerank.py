"""`pairwire rerank`: documents in the order of their scores."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import arguments, records
from .exits import BadInput

if TYPE_CHECKING:
    from pairwire.client.first_stage import FirstStage
    from pairwire.client.results import RankedDocument, RerankResult

DETAILS = """

With a QUERY the documents are arguments, or texts, one a line: plain, or JSON ("a" or {"text": "a"}).
Without, each line has both:
  JSON   {"query": "q", "documents": ["a", "b"]}
  TSV    q<TAB>a          (lines of one query follow each other)
One line of output a document, best first: rank, score, index (from 0), document.

With --first-stage a bi-encoder compares all documents with the query, which is cheap, and only the nearest are read by
the cross-encoder and printed.

With --partial-ok a busy server scores what it has time for (--timeout) and room for, and answers. Documents without a
score come last, with - for the score; stderr says how many, and why."""

KEEP = 100


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "rerank", "rank documents by how well they answer a query", DETAILS)
    parser.add_argument("query", nargs="?", metavar="QUERY", help="one query")
    parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="documents to rank")
    parser.add_argument("-k", "--top-k", type=arguments.count, metavar="N", help="only the N best")
    parser.add_argument("--min-score", type=_score, metavar="S", help="only documents with this score or a higher one")
    parser.add_argument(
        "--first-stage",
        metavar="MODEL",
        help="let this bi-encoder choose what is ranked: its name, or with --local the directory of its package",
    )
    parser.add_argument(
        "--keep", type=arguments.count, metavar="N", help=f"documents that it lets through (default: {KEEP})"
    )
    parser.add_argument(
        "--partial-ok",
        action="store_true",
        help="rank what can be scored in time, instead of failing, and the rest after it",
    )
    arguments.add_input(parser, ("jsonl", "tsv", "text"), "text with a QUERY, tsv without, jsonl with both")
    arguments.add_json(
        parser,
        'print {"query": ..., "results": [{"index", "score", "document"}, ...]} a query; each result has a '
        '"first_stage_score" too where there is a first stage, and where it has no score "unscored", which says why',
    )
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ranks and prints, query by query."""
    from pairwire.client.inputs import ScoreOptions

    from . import output
    from .backend import open_backend

    source, first_stage = _source(args), _first_stage(args)
    options = ScoreOptions(**arguments.reading(args), activation=args.activation)
    asked: list[str] = []  # queries read and not yet answered, a handful

    def noted() -> Iterator[records.Query]:
        for query in source.records:
            asked.append(query.query)
            yield query

    with open_backend(args) as backend, output.progress(" queries", source.total) as advance:
        for result in backend.rerank(
            noted(), args.top_k, options, first_stage, args.min_score, partial_ok=args.partial_ok
        ):
            _show(asked.pop(0), result, args)
            advance(1)
    return 0


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _first_stage(args: argparse.Namespace) -> FirstStage | None:
    from pairwire.client.first_stage import FirstStage

    if args.first_stage is None:
        if args.keep is not None:
            raise BadInput("--keep says what a first stage lets through: give --first-stage too, or --top-k instead")
        return None
    # A package's name is in its manifest; here it is the only bi-encoder that is loaded.
    model = args.first_stage if args.local is None else ""
    return FirstStage(model=model, keep=args.keep or KEEP)


def _source(args: argparse.Namespace) -> records.Source[records.Query]:
    if args.query is None:
        if args.format == records.TEXT:
            raise BadInput("--format text needs a QUERY argument: plain lines are documents")
        return records.queries(args.input, args.format)
    if args.documents:
        if args.input is not None:
            raise BadInput("documents as arguments and --input: give one of them")
        return records.from_arguments([records.Query(args.query, args.documents)])
    if args.format == records.TSV:
        raise BadInput("--format tsv has queries of its own: leave the QUERY argument out")
    documents = list(records.texts(args.input, args.format).records)
    if not documents:
        raise BadInput("no documents in the input: at least one is needed")
    return records.from_arguments([records.Query(args.query, documents)])


def _show(query: str, result: RerankResult, args: argparse.Namespace) -> None:
    from . import output

    if args.json:
        print(output.json_line({"query": query, "results": [_entry(found) for found in result]}))
        return
    if result.unscored:
        print(f"pairwire: documents without a score: {result.unscored} ({result.unscored_reason})", file=sys.stderr)
    if args.query is None:  # several queries: say which this is
        print(f"# {output.one_line(query)}")
    for rank, found in enumerate(result, start=1):
        score = f"{found.score:.6f}" if found.scored else "-"
        print(f"{rank}\t{score}\t{found.index}\t{output.one_line(found.document)}")


def _entry(found: RankedDocument) -> dict[str, object]:
    from . import output

    entry: dict[str, object] = {"index": found.index, "score": output.short(found.score) if found.scored else None}
    if found.unscored is not None:
        entry["unscored"] = found.unscored
    if found.first_stage_score is not None:
        entry["first_stage_score"] = output.short(found.first_stage_score)
    return {**entry, "document": found.document}
