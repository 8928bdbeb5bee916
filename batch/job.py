"""What is asked of a model: the task, its columns and its options, as one value that can be sent to any process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pairwire.client.inputs import EmbedOptions, ScoreOptions, SparseOptions
from pairwire.server.engine import ModelKind

Options = ScoreOptions | EmbedOptions | SparseOptions


class Task(StrEnum):
    """What is made of each row."""

    SCORE = "score"
    """A number, or one a label, of two texts."""
    RERANK = "rerank"
    """An order of the documents of a query."""
    EMBED = "embed"
    """A vector of a text."""
    EMBED_SPARSE = "embed-sparse"
    """A sparse vector of a text."""


COLUMNS: dict[Task, tuple[str, ...]] = {
    Task.SCORE: ("first", "second"),
    Task.RERANK: ("query", "documents"),
    Task.EMBED: ("text",),
    Task.EMBED_SPARSE: ("text",),
}
"""The columns of the input, unless others are named."""

KINDS = {
    Task.SCORE: ModelKind.CROSS_ENCODER,
    Task.RERANK: ModelKind.CROSS_ENCODER,
    Task.EMBED: ModelKind.BI_ENCODER,
    Task.EMBED_SPARSE: ModelKind.SPARSE_ENCODER,
}
"""The models that can do it."""

_OPTIONS: dict[Task, type[Options]] = {
    Task.SCORE: ScoreOptions,
    Task.RERANK: ScoreOptions,
    Task.EMBED: EmbedOptions,
    Task.EMBED_SPARSE: SparseOptions,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task with all its options. ``Job.of`` makes it from names."""

    task: Task
    columns: tuple[str, ...]
    """The columns of the input that are read: two for score and rerank, one for the others."""
    options: Options
    top_k: int | None = None
    """rerank: how many documents of each query are given back; None for all."""

    @classmethod
    def of(cls, task: Task | str, columns: tuple[str, ...] = (), top_k: int | None = None, **options: Any) -> Job:
        """A job by the name of its task; ``options`` are those of `pairwire.client.Client`'s method of that name.

        Raises:
            ValueError: an unknown task, the wrong number of columns, ``top_k`` where nothing is ranked.
            TypeError: an option that the task does not have.
            pairwire.client.InvalidInput: a value that an option cannot have.
        """
        try:
            task = Task(task)
        except ValueError:
            raise ValueError(f"task: {task!r} is none of {', '.join(Task)}") from None
        columns = tuple(columns) or COLUMNS[task]
        if len(columns) != len(COLUMNS[task]):
            raise ValueError(f"columns: {task} reads {len(COLUMNS[task])} columns, not {len(columns)}")
        if top_k is not None and (task is not Task.RERANK or top_k < 1):
            raise ValueError(f"top_k: {top_k!r}; it is at least 1, and for rerank only")
        return cls(task=task, columns=columns, options=_OPTIONS[task](**options), top_k=top_k)

    def described(self) -> dict[str, Any]:
        """All of it as JSON, for the manifest. The priority is left out: it changes no result."""
        options = asdict(self.options)
        del options["priority"]
        return {"task": str(self.task), "columns": list(self.columns), "top_k": self.top_k, "options": options}
