"""A bulk run: what it is, whether it may go on in its directory, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .errors import InputUnusable
from .inputs import CSV, JSONL, TSV, InputFile, find_inputs
from .job import Job
from .lanes import Where, run_lanes
from .manifest import Line, Manifest, claim, finished, lane_name, locked
from .progress import Progress, cpu_seconds, progress
from .shards import DATA, SHARD_ROWS, WINDOW_BYTES, WINDOW_ROWS
from .sources import open_source, opened
from .worker import Computer, Plan, check_source
from .writing import OUTPUTS, remove_leftovers

FORMAT = 1
"""Of the output directory. It changes when shards or windows would begin elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkConfig:
    """What a run is asked to do.

    Raises:
        ValueError: on construction, when a value cannot work.
    """

    job: Job
    inputs: Sequence[str]
    """Files, directories and globs, as fsspec reads them."""
    output: Path
    """A directory, made where it is missing; another run's is refused."""
    where: Where
    input_format: str | None = None
    """None: by the names."""
    output_format: str | None = None
    """None: that of the inputs."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): every n-th shard from the i-th on, i from 0."""
    processes: int = 1
    shard_rows: int = 0
    """Rows of a part; 0 for what fits the task."""
    max_errors: int = 100
    """Most bad rows."""
    price_per_hour: float = 0.0
    """Of this machine, for the progress bar and the summary."""

    def __post_init__(self) -> None:
        index, of = self.shard
        if not 0 <= index < of:
            raise ValueError(f"shard: {index}/{of} is no i/n with i from 0 to n - 1")
        for name, least in (("processes", 1), ("shard_rows", 0), ("max_errors", 0), ("price_per_hour", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} cannot work; give at least {least}")
        if self.output_format is not None and self.output_format not in OUTPUTS:
            raise ValueError(f"output_format: {self.output_format!r} is none of {', '.join(OUTPUTS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What came of a run. Rows, tokens and errors are of the whole of it, also of what was finished before."""

    output: str
    rows: int
    errors: int
    """Bad rows: errors.jsonl has them."""
    parts: int
    tokens: int
    """Of what was computed."""
    resumed_rows: int
    """Rows that were finished before."""
    computed: int
    """Pairs or texts that were computed now: duplicates are left out."""
    padding: float
    """Share of the tokens computed now that are padding."""
    seconds: float
    rows_per_s: float
    """Of now."""
    cpu_seconds: float
    cost: float
    """Of now, in the currency of the price."""
    files: dict[str, int] = field(default_factory=dict)
    """Rows by input."""


def run_bulk(config: BulkConfig) -> Summary:
    """Does all that is not done.

    Raises:
        BulkError: it cannot go on; what is finished is kept.
        PairwireError, ClientError: the package cannot be loaded, or servers do not answer.
    """
    files = find_inputs(config.inputs, config.input_format)
    if not files:
        raise InputUnusable("no inputs: give files, directories or globs")
    _check_apart(config)
    form = config.output_format or _same_format(files)
    with locked(config.output, config.shard):
        computer = config.where.open(config.job)
        try:
            return _run(config, files, form, computer)
        finally:
            computer.close()


def _check_apart(config: BulkConfig) -> None:
    """Whether the output would become an input of the same run, when that is started again.

    Raises:
        InputUnusable: it lies in an input directory.
    """
    output = config.output.resolve()
    for given in config.inputs:
        if Path(given).is_dir() and output.is_relative_to(Path(given).resolve()):
            raise InputUnusable(
                f"{config.output}: lies in the input {given}, which is read with all in it; put it elsewhere"
            )


def _run(config: BulkConfig, files: tuple[InputFile, ...], form: str, computer: Computer) -> Summary:
    shard_rows = config.shard_rows or SHARD_ROWS[config.job.task]
    plan = Plan(
        files=files,
        job=config.job,
        directory=config.output,
        form=form,
        shard_rows=shard_rows,
        max_errors=config.max_errors,
    )
    total = _check_inputs(plan, computer)  # before anything is claimed: a wrong column must not leave a directory
    claim(config.output, _described(plan, computer))
    manifest = Manifest(config.output, lane_name(config.shard))
    known = manifest.settle()
    if config.shard[1] == 1:
        remove_leftovers(config.output / DATA)
    done = finished(config.output)
    before = sum(line["rows"] for line in known if line["part"] in done)
    used = cpu_seconds()
    further: Sequence[Line] = ()
    share = None if total is None else -(-total // config.shard[1])
    with progress(share, before, config.price_per_hour) as shown:
        try:
            run_lanes(replace(plan, done=done), config.where, computer, config.shard, config.processes, shown.add)
        except Exception as error:
            further = getattr(error, "rows", ())
            raise
        finally:
            lines = manifest.settle(further)
        return _summary(config, lines, before, shown, cpu_seconds() - used)


def _described(plan: Plan, computer: Computer) -> dict[str, object]:
    """What must be equal for a run to go on."""
    return {
        "format": FORMAT,
        "package": computer.identity,
        "runtime": computer.runtime,
        **plan.job.described(),
        "output_format": plan.form,
        "shard_rows": plan.shard_rows,
        "window": [WINDOW_ROWS, WINDOW_BYTES],
        "inputs": [file.described() for file in plan.files],
    }


def _check_inputs(plan: Plan, computer: Computer) -> int | None:
    """Opens every input once: what is wrong with the last one is said before the first is computed. All rows."""
    total: int | None = 0
    for file in plan.files:
        source = open_source(file, plan.job, typed=plan.is_typed(file))
        check_source(source.schema, source.names, plan, computer.shape, file)
        rows = source.rows if source.rows is not None else _count_lines(file)
        total = None if total is None or rows is None else total + rows
    return total


def _count_lines(file: InputFile) -> int | None:
    """About as many rows as a file of lines has, for the bar alone; None where that would take long to find out."""
    if not sys.stderr.isatty() or "://" in file.url:
        return None
    with opened(file) as stream:
        lines: int = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    return max(0, lines - 1) if file.format in (CSV, TSV) else lines


def _same_format(files: tuple[InputFile, ...]) -> str:
    formats = sorted({CSV if file.format == TSV else file.format for file in files})
    if len(formats) > 1:
        raise InputUnusable(f"the inputs are {' and '.join(formats)}; say with --format what the output is")
    return formats[0] if formats else JSONL


def _summary(config: BulkConfig, lines: Sequence[Line], before: int, shown: Progress, used: float) -> Summary:
    by_file: dict[str, int] = {}
    for line in lines:
        by_file[line["input"]["url"]] = by_file.get(line["input"]["url"], 0) + line["rows"]
    seconds = shown.seconds
    return Summary(
        output=str(config.output),
        rows=sum(line["rows"] for line in lines),
        errors=sum(len(line["errors"]) for line in lines),
        parts=len(lines),
        tokens=sum(line["tokens"] for line in lines),
        resumed_rows=before,
        computed=shown.total.computed,
        padding=round(shown.padding_share, 4),
        seconds=round(seconds, 3),
        rows_per_s=round(shown.total.rows / max(seconds, 1e-9), 1),
        cpu_seconds=round(used, 2),
        cost=round(shown.cost, 4),
        files=by_file,
    )


def as_json(summary: Summary) -> dict[str, object]:
    """For programs."""
    return asdict(summary)
