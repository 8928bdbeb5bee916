"""`pairwire classify`: which of the labels that the caller makes up describe a text."""

from __future__ import annotations

import argparse

from . import arguments, records
from .exits import BadInput

DETAILS = """

The model must have learnt natural language inference (NLI): its labels include entailment. The scores of a text add up
to 1; with --multi-label each label is judged by itself.

Texts as arguments, or one a line: plain, or JSON ("a" or {"text": "a"}).
One line of output a text: label, score, label, score, ..., best first, with tabs between."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(
        subparsers, "classify", "say which labels describe a text, with an NLI cross-encoder (zero-shot)", DETAILS
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    parser.add_argument(
        "-l",
        "--label",
        action="append",
        dest="labels",
        metavar="LABEL",
        help="what may describe a text; once for each label, e.g. -l urgent -l 'not urgent'",
    )
    parser.add_argument(
        "--multi-label", action="store_true", help="judge each label by itself, so that several may be true"
    )
    parser.add_argument(
        "--template",
        metavar="SENTENCE",
        help="the hypothesis, with {} where the label goes (default: 'This example is {}.')",
    )
    arguments.add_input(parser, ("jsonl", "text"), "jsonl or text")
    arguments.add_json(parser, 'print {"index": 0, "labels": [...], "scores": [...]} a line, best first')
    arguments.add_connection(parser, local=True)
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", default="", help="needed only where several models know entailment")
    group.add_argument(
        "--max-length",
        metavar="TOKENS",
        type=arguments.count,
        help="cut a text with its hypothesis at this many tokens, not the model's",
    )
    group.add_argument(
        "--truncation",
        choices=["only_first", "longest_first", "error"],
        help="what to do with longer texts (default: only_first, which leaves hypotheses whole)",
    )
    group.add_argument(
        "--truncation-direction", choices=["right", "left"], help="which end to cut off (default: the model's own)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Classifies and prints, as the input is read."""
    if not args.labels:
        raise BadInput("no labels: give at least one, e.g. -l urgent -l 'not urgent'")
    from pairwire.client.zero_shot import ClassifyOptions

    from . import output
    from .backend import open_backend
    from .failures import naming_lines

    source = records.single(args)
    options = ClassifyOptions(
        model=args.model,
        truncation=args.truncation,
        truncation_direction=args.truncation_direction,
        max_length=args.max_length,
        priority=args.priority,
        hypothesis_template=args.template,
        multi_label=args.multi_label,
    )
    start = 0
    with open_backend(args) as backend, output.progress(" texts", source.total) as advance, naming_lines(source.lines):
        for result in backend.classify(source.records, args.labels, options):
            truncated = set(result.usage.truncated_inputs)
            for index, found in enumerate(result, start):
                if args.json:
                    scores = [output.short(score) for score in found.scores]
                    record = {"index": index, "labels": found.labels, "scores": scores}
                    print(output.json_line({**record, "truncated": True} if index in truncated else record))
                else:
                    pairs = zip(found.labels, found.scores, strict=True)
                    print("\t".join(f"{output.one_line(label)}\t{score:.6f}" for label, score in pairs))
            start += len(result)
            advance(len(result))
    return 0
