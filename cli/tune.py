"""`pairwire tune`: what a model package runs fastest with on this processor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import Tuning, Variant

_DETAILS = """ ONNX Runtime's optimizers, the size of batches, and which variant
serves, are tried side by side; what is faster by more than 2 % and gives the same answers is written into the package's
manifest, with the table. Graphs and their sha256 stay as they are. `pairwire serve` obeys it from its next start on.
Takes about half a minute for each variant of a small model."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "tune", "find what a model package runs fastest with here", _DETAILS)
    parser.add_argument("directory", metavar="DIR", type=Path, help="a directory that `pairwire export` wrote")
    parser.add_argument("--variant", metavar="NAME", default="", help="tune only this one (default: all for CPUs)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be chosen and write nothing")
    arguments.add_json(parser, "print one object: directory, changes, variants with their tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures, writes and prints."""
    from google.protobuf import json_format

    from pairwire.server.package import check_writable, read_package, replace_manifest
    from pairwire.server.runtime.wheels import check_wheels

    check_wheels()
    from pairwire.server.tuning.tune import tune_package

    from . import output

    read_package(args.directory)  # a wrong directory is better said than one that cannot be written
    if not args.dry_run:
        check_writable(args.directory)
    tuned = tune_package(args.directory, variant=args.variant, tell=lambda line: print(line, file=sys.stderr))
    if not args.dry_run:
        replace_manifest(tuned.package, tuned.manifest)
    if args.json:
        variants = [json_format.MessageToDict(variant) for variant in tuned.manifest.variants]
        print(
            output.json_line({"directory": str(args.directory), "changes": list(tuned.changes), "variants": variants})
        )
        return 0
    for variant in tuned.manifest.variants:
        if not args.variant or variant.name == args.variant:
            print(tables(variant))
    print(_verdict(args, tuned.changes))
    return 0


def tables(variant: Variant) -> str:
    """What was chosen for a variant by measurement, from what."""
    return "\n\n".join(_table(variant.name, tuning) for tuning in variant.tunings)


def _table(name: str, tuning: Tuning) -> str:
    from . import output

    head = ("", tuning.subject, *tuning.columns, "relative", "difference", "")
    rows = []
    for candidate in tuning.candidates:
        columns = [f"{value:.2f}" for value in candidate.us_per_token] or [""] * len(tuning.columns)
        measured = bool(candidate.us_per_token)
        rows.append(
            (
                "*" if candidate.chosen else "",
                candidate.name,
                *columns,
                f"{candidate.relative:.3f}" if measured else "",
                f"{candidate.max_abs_diff:.1e}" if measured else "",
                candidate.reason,
            )
        )
    title = f"{name}: {tuning.subject}, microseconds a token ({tuning.processor}, onnxruntime {tuning.runtime},"
    numbers = range(2, 4 + len(tuning.columns))
    return f"{title} {tuning.created})\n{output.table(head, rows, right=numbers)}"


def _verdict(args: argparse.Namespace, changes: object) -> str:
    if not changes:
        return "\nnothing is faster than what the package has" + ("" if args.dry_run else "; the tables were written")
    if args.dry_run:
        return "\nnothing was written (--dry-run)"
    return f"\nwritten to {args.directory}; servers obey it from their next start on"
