"""One lane of a bulk run: reads windows, has them computed, and writes their parts, until its shards are done.

While a window is computed, the next one is read and tokenised. It is handed to the model when the part before it is
finished, where it begins another one: what a kill can cost is one shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .answers import Answers, Shape
from .columns import check_names, result_schema, with_results
from .distinct import Distinct
from .errors import TooManyErrors
from .inputs import InputFile
from .job import Job
from .manifest import Line, Manifest
from .progress import Report
from .shards import Shard, Window, windows_of
from .sources import open_source
from .texts import Asked, Item, check_schema, read_texts
from .writing import Part, check_output

_IN_FLIGHT = 2
"""Windows of a shard that are computed at once: the second begins where the first has no batch left for a worker."""
_SHOWN = 3
"""Bad rows in a sentence."""


class Computer(Protocol):
    """What computes: a model here, or servers."""

    shape: Shape
    identity: str
    """Of the package."""
    runtime: str
    """What else results depend on."""

    def begin(self, items: Sequence[Item]) -> Any:
        """Reads items; computes nothing yet."""
        ...

    def submit(self, begun: Any) -> None:
        """Starts computing them."""
        ...

    def finish(self, begun: Any) -> Answers:
        """Waits for their answers."""
        ...

    def close(self) -> None:
        """Drops what waits."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What all lanes of a run know."""

    files: tuple[InputFile, ...]
    job: Job
    directory: Path
    form: str
    """Of the output."""
    shard_rows: int
    max_errors: int
    done: Mapping[str, Line] = field(default_factory=dict)
    """Finished parts."""
    lanes: int = 1
    """Of all shards of the run together."""

    def is_typed(self, file: InputFile) -> bool:
        """Whether fields of JSON become columns; else whole lines are carried."""
        return self.form != "jsonl" or file.format != "jsonl"


@dataclass(slots=True)
class _Open:
    """A window under way."""

    window: Window
    asked: Asked
    at: npt.NDArray[np.intp]
    """[items] numbers of their answers in the shard."""
    begun: Any


class Lane:
    """One lane of a plan."""

    def __init__(
        self, plan: Plan, lane: int, computer: Computer, manifest: Manifest, report: Callable[[Report], None]
    ) -> None:
        self._plan, self._lane, self._computer = plan, lane, computer
        self._manifest, self._report = manifest, report
        self._errors = sum(len(line["errors"]) for line in plan.done.values())
        self._waiting: deque[_Open] = deque()
        self._shard: _ShardInWork | None = None

    def run(self) -> None:
        """Does all shards of the lane that are not done.

        Raises:
            BulkError: the run cannot go on; what is finished is kept.
            Whatever the computer raises.
        """
        try:
            for window in self._windows():
                if self._shard is None or self._shard.shard != window.shard:
                    fresh = _ShardInWork(window.shard, self._plan.job, self._computer.shape)
                    opened = self._open(window, fresh)
                    self._finish_shard()
                    self._shard = fresh
                else:
                    opened = self._open(window, self._shard)
                self._computer.submit(opened.begun)
                self._waiting.append(opened)
                if len(self._waiting) >= _IN_FLIGHT:
                    self._finish_window()
            self._finish_shard()
        finally:
            if self._shard is not None:
                self._shard.drop()

    def _windows(self) -> Iterator[Window]:
        plan = self._plan
        suffix = plan.form
        names = tuple(result_schema(plan.job, self._computer.shape).names)
        for number, file in enumerate(plan.files):
            source = open_source(file, plan.job, typed=plan.is_typed(file), reserved=names)
            check_source(source.schema, source.names, plan, self._computer.shape, file)

            def is_mine(shard: Shard) -> bool:
                mine = (shard.file_number + shard.number) % plan.lanes == self._lane
                return mine and shard.part(suffix) not in plan.done

            yield from windows_of(file, number, source, plan.shard_rows, is_mine)

    def _open(self, window: Window, shard: _ShardInWork) -> _Open:
        asked = read_texts(window.table, self._plan.job, window.bad)
        new, at = shard.distinct.split(asked.items)
        begun = self._computer.begin(new)
        shard.computed += len(new)
        return _Open(window, asked, at, begun)

    def _finish_window(self) -> None:
        shard, opened = self._shard, self._waiting.popleft()
        assert shard is not None, "a window is of a shard"
        answers = self._computer.finish(opened.begun)
        shard.distinct.add(answers)
        found = with_results(
            opened.window.table, self._plan.job, self._computer.shape, opened.asked, shard.distinct.taken(opened.at)
        )
        bad = [{"row": opened.window.start + row, "reason": reason} for row, reason in sorted(opened.asked.bad.items())]
        shard.errors += bad
        self._errors += len(bad)
        if self._errors > self._plan.max_errors:
            raise TooManyErrors(self._too_many(shard), _described(shard))
        shard.write(found, self._plan)
        tokens, padding = answers.tokens, sum(answers.padding)
        shard.tokens += tokens
        self._report(
            Report(
                rows=found.num_rows,
                items=len(opened.at),
                computed=len(answers.values),
                tokens=tokens,
                padding=padding,
                errors=len(bad),
            )
        )

    def _finish_shard(self) -> None:
        while self._waiting:
            self._finish_window()
        shard = self._shard
        if shard is None:
            return
        shard.shard.file.check_unchanged()
        self._manifest.append(shard.finish(self._plan, self._computer.identity))
        self._shard = None
        self._report(Report(parts=1))

    def _too_many(self, shard: _ShardInWork) -> str:
        shown = "; ".join(f"row {each['row']}: {each['reason']}" for each in shard.errors[:_SHOWN])
        return (
            f"{shard.shard.file.url}: {self._errors} bad rows are more than --max-errors {self._plan.max_errors} "
            f"({shown}); errors.jsonl has them all. What is finished is kept"
        )


def _described(shard: _ShardInWork) -> list[Line]:
    return [{"input": shard.shard.file.url, **error} for error in shard.errors]


def check_source(schema: pa.Schema, names: tuple[str, ...], plan: Plan, shape: Shape, file: InputFile) -> None:
    """Whether an input can be read, and its output written.

    Raises:
        InputUnusable: a column is missing, is no text, or has the name of a result; or the format cannot hold one.
    """
    check_schema(schema, plan.job, file.url)
    check_names(pa.schema([(name, pa.null()) for name in names]), plan.job, shape, file.url)
    check_output(plan.form, pa.schema([*schema, *result_schema(plan.job, shape)]))


class _ShardInWork:
    """A shard and its part."""

    def __init__(self, shard: Shard, job: Job, shape: Shape) -> None:
        self.shard = shard
        self.distinct = Distinct(job, shape)
        self.errors: list[Line] = []
        self.computed = self.tokens = self._rows = 0
        self._part: Part | None = None

    def write(self, table: pa.Table, plan: Plan) -> None:
        if self._part is None:
            self._part = Part(plan.directory / self.shard.part(plan.form), plan.form, table.schema)
        self._part.write(table)
        self._rows += table.num_rows

    def finish(self, plan: Plan, identity: str) -> Line:
        """The line of the manifest."""
        assert self._part is not None, "a shard has a window"
        size, digest = self._part.finish()
        return {
            "part": self.shard.part(plan.form),
            "input": self.shard.file.described(),
            "first_row": self.shard.start,
            "rows": self._rows,
            "computed": self.computed,
            "tokens": self.tokens,
            "bytes": size,
            "sha256": digest,
            "package": identity,
            "options": plan.job.described(),
            "errors": self.errors,
        }

    def drop(self) -> None:
        if self._part is not None:
            self._part.drop()
