"""`pairwire models`: what a server has loaded."""

from __future__ import annotations

import argparse
import dataclasses

from . import arguments


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "models", "list the models that a server has loaded")
    arguments.add_json(parser, "print an object a line")
    arguments.add_connection(parser, local=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks and prints."""
    from . import output
    from .remote import open_client

    with open_client(args) as client:
        models = client.models()
    if args.json:
        for model in models:
            print(output.json_line(dataclasses.asdict(model)))
        return 0
    rows = [
        (
            model.name,
            model.kind,
            model.variant,
            model.provider,
            str(model.max_length),
            f"{model.workers} x {model.intra_op_threads}",
            f"{len(model.bucket_lengths)}: {_span(model.bucket_lengths)}",
        )
        for model in models
    ]
    print(output.table(("model", "kind", "variant", "provider", "tokens", "threads", "buckets"), rows, right=[4]))
    return 0


def _span(lengths: tuple[int, ...]) -> str:
    return f"{lengths[0]} to {lengths[-1]}" if lengths else "none"
