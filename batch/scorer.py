"""`Scorer`: an engine as a callable over tables, for whatever spreads a function over many rows or machines."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from .job import Job, Task

if TYPE_CHECKING:
    import pyarrow as pa

    from pairwire.server.engine import EngineConfig

    from .answering import Answering
    from .answers import Answers
    from .texts import Asked


class Scorer:
    """Scores, ranks or embeds the rows of tables. It can be pickled, and opens its engine where it is first called.

    All that are made of one package in one process share one engine; the last that is closed closes it. It may be
    called from several threads at once. Example::

        scorer = Scorer("models/demo")
        scorer(pa.table({"first": ["a"], "second": ["b"]}))                    # the same with a column "score"
        dataset.map_batches(Scorer, fn_constructor_args=("models/demo",), concurrency=2, batch_format="pyarrow")
    """

    def __init__(
        self,
        package: str | Path,
        task: Task | str = Task.SCORE,
        *,
        columns: tuple[str, ...] = (),
        on_error: Literal["raise", "null"] = "raise",
        top_k: int | None = None,
        engine: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Opens nothing yet.

        Args:
            package: directory of a model package, on every machine that calls it.
            task: score, rerank, embed or embed-sparse.
            columns: the columns to read, instead of `pairwire.batch.job.COLUMNS`.
            on_error: what a row without text, or too long under ``truncation="error"``, does: raises a ValueError
                that names it, or gets nulls.
            top_k: rerank: how many documents of each query are given back.
            engine: fields of `pairwire.server.engine.EngineConfig`, e.g. ``{"workers": 4}``.
            options: those of the client's method of that name: ``truncation``, ``max_length``, ``activation``,
                ``dimensions``, ``normalize``, ``encoding``, ``prompt_name`` ...

        Raises:
            ValueError, TypeError, pairwire.client.InvalidInput: as `Job.of`.
            pairwire.server.errors.ConfigInvalid: an engine setting that cannot work.
        """
        if on_error not in ("raise", "null"):
            raise ValueError(f"on_error: {on_error!r} is neither 'raise' nor 'null'")
        self._package = Path(package)
        self._job = Job.of(task, columns, top_k, **options)
        self._on_error = on_error
        self._settings = dict(engine or {})
        self._config()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._answering: Answering | None = None
        self._submit: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_package", "_job", "_on_error", "_settings")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __call__(self, batch: Any) -> Any:
        """The table with the columns of the results; see `pairwire.batch.columns.result_schema` for their types.

        ``batch`` is a table or record batch of pyarrow, a DataFrame of pandas, or a dict of numpy arrays; the same
        comes back.

        Raises:
            ValueError: a row that cannot be read, unless ``on_error`` is "null".
            pairwire.batch.errors.InputUnusable: a column is missing or is no text.
            pairwire.server.errors.PairwireError: the package cannot be loaded, or the engine failed.
        """
        from .tables import to_arrow

        table, back = to_arrow(batch)
        return back(self._finish(*self._begin(table)))

    def stream(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batch after batch, in order, with the next ones in flight: what Spark's ``mapInArrow`` calls.

        Errors as ``__call__``.
        """
        from .tables import to_arrow

        waiting: deque[Any] = deque()
        for batch in batches:
            table, back = to_arrow(batch)
            waiting.append((back, *self._begin(table)))
            if len(waiting) > 2:
                back, *begun = waiting.popleft()
                yield back(self._finish(*begun))
        for back, *begun in waiting:
            yield back(self._finish(*begun))

    def function(self) -> Callable[..., Any]:
        """A function of columns of texts that gives the first column of the results, all of them arrays of pyarrow.

        It has as many parameters as the task reads columns, and no annotations: DuckDB looks at both. It raises what
        ``__call__`` raises.
        """
        if len(self._job.columns) == 2:
            return lambda first, second: self._column(first, second)
        return lambda text: self._column(text)

    def _column(self, *columns: Any) -> pa.Array:
        import pyarrow as pa

        from .columns import result_schema

        table = self(pa.table(dict(zip(self._job.columns, columns, strict=True))))
        return table.column(result_schema(self._job, self.open().shape).names[0]).combine_chunks()

    def open(self) -> Answering:
        """Opens the engine, where it is not open yet.

        Raises:
            pairwire.server.errors.PairwireError: the package cannot be loaded, or its model cannot do the task.
        """
        from . import sharing
        from .answering import Answering

        with self._lock:
            if self._answering is None or self._process != os.getpid():  # an engine's threads do not survive a fork
                shared = sharing.acquire(self._package, self._config())
                try:
                    self._answering = Answering(shared.thread.engine, self._job, shared.in_flight)
                except BaseException:
                    sharing.release(self._package, self._config())
                    raise
                self._submit = shared.thread.submit
                self._process = os.getpid()
            return self._answering

    def close(self) -> None:
        """Closes the engine where no other `Scorer` of this process uses it. The next call would open it again."""
        from . import sharing

        with self._lock:
            if self._answering is not None:
                self._answering = None
                sharing.release(self._package, self._config())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Scorer({str(self._package)!r}, {str(self._job.task)!r})"

    def _config(self) -> EngineConfig:
        from .sharing import batch_config

        return batch_config(**self._settings)

    def _begin(self, table: pa.Table) -> tuple[pa.Table, Asked, Future[Answers]]:
        from .columns import check_names
        from .texts import check_schema, read_texts

        check_schema(table.schema, self._job, "the table")
        answering = self.open()
        check_names(table.schema, self._job, answering.shape, "the table")
        asked = read_texts(table, self._job)
        self._check(asked)
        return table, asked, self._submit(answering.answer(asked.items))

    def _finish(self, table: pa.Table, asked: Asked, answers: Future[Answers]) -> pa.Table:
        from .columns import with_results

        found = with_results(table, self._job, self.open().shape, asked, answers.result())
        self._check(asked)
        return found

    def _check(self, asked: Asked) -> None:
        if asked.bad and self._on_error == "raise":
            row = min(asked.bad)
            raise ValueError(f"row {row}: {asked.bad[row]}; on_error='null' leaves such rows without a result")
