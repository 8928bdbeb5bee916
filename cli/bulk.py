"""`pairwire bulk score | rerank | embed | embed-sparse`: files in, files out, and a run that can be killed."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import arguments
from .any_order import AnyOrderParser
from .exits import BAD_INPUT, BadInput

if TYPE_CHECKING:
    from pairwire.batch.job import Job
    from pairwire.batch.lanes import Where
    from pairwire.batch.run import Summary

DETAILS = """

INPUT is a file, a directory or a glob: Parquet, Arrow IPC, JSON lines or CSV, here or wherever fsspec has a driver.
DIR gets one part for each shard, in the order of the input with all its columns, manifest.jsonl, and errors.jsonl
with the rows that could not be read. A run that was killed goes on where it was: give the same command again."""

_RESULTS = {
    "score": 'Adds "score", or "score_LABEL" for each of several labels.',
    "rerank": 'Adds "indices" and "scores", lists, the best document first.',
    "embed": 'Adds "embedding", a list of fixed size.',
    "embed-sparse": 'Adds "indices" and "values", lists.',
}
_COLUMNS = {
    "score": (("first", "first"), ("second", "second")),
    "rerank": (("query", "query"), ("documents", "documents")),
    "embed": (("text", "text"),),
    "embed-sparse": (("text", "text"),),
}
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Kubernetes sets it in the pods of an Indexed Job."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command and its tasks."""
    parser = arguments.add_command(subparsers, "bulk", "score, rank or embed whole files of texts, resumably", DETAILS)
    tasks: Any = parser.add_subparsers(
        title="tasks", metavar="TASK", dest="task", required=True, parser_class=AnyOrderParser
    )
    _add_task(tasks, "score", "score the pairs of files with a cross-encoder")
    _add_task(tasks, "rerank", "rank the documents of the queries of files")
    _add_task(tasks, "embed", "embed the texts of files with a bi-encoder")
    _add_task(tasks, "embed-sparse", "embed the texts of files with a sparse encoder")


def _add_task(tasks: Any, task: str, summary: str) -> None:
    parser = arguments.add_command(tasks, task, summary, f"{DETAILS}\n\n{_RESULTS[task]}")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, directories, globs, or URLs of them")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="where the parts go")
    for name, default in _COLUMNS[task]:
        parser.add_argument(
            f"--{name}-column", metavar="NAME", default=default, help=f"the column to read (default: {default})"
        )
    formats = ["parquet", "arrow", "jsonl", "csv"]
    parser.add_argument("--format", choices=formats, help="of the output (default: that of the input)")
    parser.add_argument("--input-format", choices=[*formats, "tsv"], help="of all inputs (default: by their names)")
    _add_running(parser)
    if task == "rerank":
        parser.add_argument("-k", "--top-k", type=arguments.count, metavar="N", help="only the N best documents")
    if task == "embed":
        arguments.add_vectors(parser)
    if task == "embed-sparse":
        parser.add_argument(
            "--max-active-dims", metavar="N", type=arguments.count, help="keep the N largest weights of each text"
        )
        parser.add_argument(
            "--input-type",
            choices=["query", "document"],
            help="what the texts are, for a model that reads them differently",
        )
    arguments.add_json(parser, "print a summary as one object of JSON")
    arguments.add_connection(parser, local=True)
    arguments.add_reading(parser, pairs=task in ("score", "rerank"))
    parser.set_defaults(run=run, bulk_task=task)


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--shard",
        metavar="I/N",
        help=f"do every N-th shard from the I-th on, I from 0; /N takes I from ${_INDEX_VARIABLE} (Kubernetes sets it)",
    )
    group.add_argument(
        "--processes", metavar="N", type=arguments.count, default=1, help="that divide the CPUs (default: 1)"
    )
    group.add_argument(
        "--shard-rows", metavar="N", type=arguments.count, default=0, help="rows of a part (default: by the task)"
    )
    group.add_argument(
        "--max-errors", metavar="N", type=_least_zero, default=100, help="most bad rows; then it ends (default: 100)"
    )
    group.add_argument(
        "--price-per-hour", metavar="X", type=_price, default=0.0, help="of this machine: shows the cost so far"
    )


def run(args: argparse.Namespace) -> int:
    """Runs, or goes on."""
    args.codes = {**_codes(), **getattr(args, "codes", {})}
    from pairwire.batch.run import BulkConfig, as_json, run_bulk

    from . import output

    try:
        config = BulkConfig(
            job=_job(args),
            inputs=args.inputs,
            output=args.output,
            where=_where(args),
            input_format=args.input_format,
            output_format=args.format,
            shard=_shard(args.shard),
            processes=args.processes,
            shard_rows=args.shard_rows,
            max_errors=args.max_errors,
            price_per_hour=args.price_per_hour,
        )
    except ValueError as error:
        raise BadInput(str(error)) from error
    summary = run_bulk(config)
    print(output.json_line(as_json(summary)) if args.json else _sentence(summary))
    return 0


def _codes() -> dict[type[BaseException], int]:
    from pairwire.batch import errors

    return {errors.BulkError: 1, errors.InputUnusable: BAD_INPUT, errors.MixedRun: BAD_INPUT}


def _job(args: argparse.Namespace) -> Job:
    from pairwire.batch.job import Job

    columns = tuple(getattr(args, f"{name}_column") for name, _ in _COLUMNS[args.bulk_task])
    names = {"score": ["activation"], "rerank": ["activation"], "embed": ["dimensions", "encoding"]}
    options = {**arguments.reading(args), **{name: getattr(args, name) for name in names.get(args.bulk_task, [])}}
    if args.bulk_task == "embed":
        options["normalize"] = args.normalize or None
    if args.bulk_task == "embed-sparse":
        options["max_active_dims"] = args.max_active_dims
        options["input_type"] = args.input_type
    return Job.of(args.bulk_task, columns, getattr(args, "top_k", None), **options)


def _where(args: argparse.Namespace) -> Where:
    from pairwire.batch.lanes import Where
    from pairwire.client import TlsFiles

    if args.local is not None:
        return Where(package=args.local)
    tls = None
    if args.tls or args.ca_file or args.cert_file or args.key_file:
        tls = TlsFiles(root_certificates=args.ca_file, client_certificate=args.cert_file, client_key=args.key_file)
    return Where(addresses=tuple(args.address.split(",")), timeout_s=args.timeout, tls=tls)


def _shard(given: str | None) -> tuple[int, int]:
    index = os.environ.get(_INDEX_VARIABLE, "")
    if given is None:
        if index:
            raise BadInput(
                f"${_INDEX_VARIABLE} is {index}, so this is one of several pods: say of how many with --shard /N"
            )
        return 0, 1
    found = re.fullmatch(r"(\d*)/(\d+)", given)
    if found is None or not (found[1] or index.isdecimal()):
        raise BadInput(f"--shard: {given!r} is no I/N, e.g. 0/8; or /8 where ${_INDEX_VARIABLE} has the index")
    return int(found[1] or index), int(found[2])


def _sentence(summary: Summary) -> str:
    again = f", {summary.resumed_rows} of them before" if summary.resumed_rows else ""
    bad = f"; {summary.errors} bad rows are in errors.jsonl" if summary.errors else ""
    cost = f", cost {summary.cost:.2f}" if summary.cost else ""
    return (
        f"{summary.rows} rows{again} in {summary.parts} parts in {summary.output}: {summary.seconds:.1f} s, "
        f"{summary.rows_per_s:.0f} rows/s, padding {summary.padding:.1%}{cost}{bad}"
    )


def _least_zero(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _price(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price an hour")
    return value
