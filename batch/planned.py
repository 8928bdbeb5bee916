"""A model in this process, run in batches that depend on the texts alone.

The engine's queue makes each batch of whatever waits, which depends on the moment; and in the last bit a result depends
on the shape of its batch. A run that is to end with the same bytes however often it was killed needs the same batches.
So here a window is sorted by tokens and cut into batches of about as many tokens as the package was tuned to. All else
is the engine's own: reading, running under its watchdog, blaming single rows, activations and encodings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pairwire.server.clock import SystemClock
from pairwire.server.engine import EngineConfig, Model
from pairwire.server.engine.encodings import encode_vectors
from pairwire.server.engine.kinds import InputType
from pairwire.server.engine.models.loading import load_model
from pairwire.server.engine.models.query_table import QueryTable
from pairwire.server.engine.outputs.heads import Activation, Head
from pairwire.server.engine.outputs.sparse import to_sparse
from pairwire.server.engine.outputs.vectors import shape_vectors
from pairwire.server.engine.running.runner import Ran, Runner
from pairwire.server.engine.text.encoder import EncodedRows
from pairwire.server.engine.text.truncation import Truncation, TruncationDirection
from pairwire.server.engine.watchdog import RunStuck, Watchdog
from pairwire.server.errors import InvalidInput, WrongModelKind
from pairwire.server.runtime.packed import is_packed

from .answering import bad_item, encoding_of, objects, shape_of, split_sparse
from .answers import Answers
from .identity import package_identity
from .job import KINDS, Job, Task
from .texts import Item

_SLICE = 256
"""Items that are tokenised at once."""
_STUCK = 3
"""Exit code where a run hangs that cannot be ended, as of `pairwire serve`."""

Rows = list[tuple[EncodedRows, int]]


@dataclass(slots=True)
class Begun:
    """Items that have been read, in batches; then on their way."""

    answers: Answers
    batches: list[tuple[npt.NDArray[np.intp], Rows]] = field(default_factory=list)
    """Which items, and their rows."""
    runs: list[Future[None]] = field(default_factory=list)


class PlannedModel:
    """A `Computer` in this process."""

    def __init__(self, package: Path, job: Job, config: EngineConfig) -> None:
        """Loads and warms a package.

        Raises:
            pairwire.server.errors.PairwireError: it cannot be loaded, or cannot do the job.
        """
        self._job = job
        self._closed = False
        self._watchdog = Watchdog(config.hang_timeout_s, clock=SystemClock(), on_stuck=_end_process)
        self._runner = Runner(self._watchdog)
        self._model = load_model(package, config, watchdog=self._watchdog)
        if self._model.kind is not KINDS[job.task]:
            raise WrongModelKind(f"{package} is a {self._model.kind.value}; {job.task} needs a {KINDS[job.task].value}")
        cuda = is_packed(self._model.runtime)
        workers = config.worker_count(cuda=cuda)
        self._info = self._model.info(workers)
        self.shape = shape_of(self._info, job)
        self.identity = package_identity(self._info.manifest, self._info.variant)
        self.runtime = f"onnxruntime {self._info.runtime.version}"
        self._prompt = self._model.prompt(job.options.prompt_name, job.options.prompt)
        self._truncation = Truncation(job.options.truncation or "longest_first")
        direction = job.options.truncation_direction
        self._direction = TruncationDirection(direction) if direction else None
        self._head = _head(self._model, job)
        self._table = _table(self._model, job)
        self._most_tokens = _batch_tokens(self._model, config)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="pairwire-batch")
        self._readers = ThreadPoolExecutor(config.text_thread_count(cuda=cuda), thread_name_prefix="pairwire-text")

    def begin(self, items: Sequence[Item]) -> Begun:
        """Reads items and makes their batches, the longest first; computes nothing."""
        begun = Begun(Answers.empty(self._job, self.shape, len(items)))
        slices = [items[at : at + _SLICE] for at in range(0, len(items), _SLICE)]
        rows: Rows = []
        kept: list[int] = []
        for number, (encoded, at) in enumerate(self._readers.map(self._encode, slices, _numbers(len(slices), begun))):
            rows += [(encoded, index) for index in range(len(encoded))]
            kept += [number * _SLICE + each for each in at]
            begun.answers.usages.append(encoded.tokens)
        lengths = np.array([encoded.lengths[index] for encoded, index in rows], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        for part in self._parts(lengths[order]):
            chosen = order[part]
            begun.batches.append((np.array([kept[each] for each in chosen]), [rows[each] for each in chosen]))
        return begun

    def submit(self, begun: Begun) -> None:
        """Hands the batches to the workers."""
        run = self._run if self._table is None else self._look_up
        begun.runs = [self._workers.submit(run, at, rows, begun.answers) for at, rows in begun.batches]
        begun.batches = []

    def finish(self, begun: Begun) -> Answers:
        """Waits for the answers.

        Raises:
            Whatever the model raises where it is the model that fails, and not single items.
        """
        for run in begun.runs:
            run.result()
        return begun.answers

    def close(self) -> None:
        """Drops what waits, and frees the model. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._workers.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self._watchdog.close()
        self._model.runtime.close()

    def _encode(self, items: Sequence[Item], to: tuple[int, Answers]) -> tuple[EncodedRows, list[int]]:
        """Rows of a slice without what cannot be read, which is noted, and which items they are."""
        begin, answers = to
        at = list(range(len(items)))
        while True:
            some: list[Any] = [items[each] for each in at]
            try:
                return self._encoded(some), at
            except InvalidInput as error:
                found = bad_item(error)
                if found is None:
                    raise
                answers.failed[begin + at.pop(found[0])] = found[1]

    def _encoded(self, items: list[Any]) -> EncodedRows:
        options: dict[str, Any] = {
            "prompt": self._prompt,
            "max_length": self._job.options.max_length,
            "truncation": self._truncation,
            "direction": self._direction,
        }
        if self._job.task in (Task.SCORE, Task.RERANK):
            firsts, seconds = [pair[0] for pair in items], [pair[1] for pair in items]
            return self._model.encoder.encode_pairs(firsts, seconds, **options)
        encoder = self._model.encoder if self._table is None else self._table.encoder
        return encoder.encode_texts(items, **options)

    def _parts(self, lengths: npt.NDArray[np.int64]) -> list[slice]:
        """Batches of rows that descend by length: as many as fit, padded to the first; the longest run alone."""
        ladder, parts, begin = self._model.ladder, [], 0
        levels = ladder.levels(lengths.astype(np.int32))
        while begin < len(lengths):
            level = int(levels[begin])
            most = 1 if level >= ladder.unpadded_level else max(1, self._most_tokens // ladder.lengths[level])
            if is_packed(self._model.runtime):
                most = min(most, self._model.runtime.shapes.most_rows)
            parts.append(slice(begin, begin + most))
            begin += most
        return parts

    def _look_up(self, at: npt.NDArray[np.intp], rows: Rows, answers: Answers) -> None:
        assert self._table is not None, "only of a model that has a table"
        keep = self._model.active_dims(cast(Any, self._job.options).max_active_dims)
        for item, (encoded, index) in zip(at, rows, strict=True):
            answers.values[item] = split_sparse(*self._table.look_up(encoded.subset([index]), keep))[0]

    def _run(self, at: npt.NDArray[np.intp], rows: Rows, answers: Answers) -> None:
        lengths = [int(encoded.lengths[index]) for encoded, index in rows]
        level = int(self._model.ladder.levels(np.array([lengths[0]], np.int32))[0])
        length = self._model.ladder.lengths[level]
        expected_s = self._model.costs.seconds(len(rows), length)
        ran = self._runner.run(self._model, rows, length, expected_s)
        values = self._finished(ran, at, answers)
        answers.values[at] = values
        if not is_packed(self._model.runtime):
            answers.padding.append(len(rows) * length - sum(lengths))

    def _finished(self, ran: Ran, at: npt.NDArray[np.intp], answers: Answers) -> Any:
        """What the caller gets of a batch's numbers; items that have none are noted."""
        for row, blame in ran.blamed.items():
            if not blame.proven:
                raise blame.error("items", row)
            answers.failed[int(at[row])] = blame.reason
        values = np.where(np.isfinite(ran.values), ran.values, np.float32(0))
        options = cast(Any, self._job.options)
        if self._job.task in (Task.SCORE, Task.RERANK):
            return self._head.scores(values)
        if self._job.task is Task.EMBED_SPARSE:
            return objects(split_sparse(*to_sparse(values, self._model.active_dims(options.max_active_dims))))
        dimensions = options.dimensions or self._model.default_dimensions or None
        shaped = shape_vectors(values, dimensions, options.normalize)
        while True:
            try:
                return encode_vectors(shaped, encoding_of(self._job.options), self._info)
            except InvalidInput as error:  # float16 does not have every number
                found = bad_item(error)
                if found is None:
                    raise
                answers.failed[int(at[found[0]])] = found[1]
                shaped = shaped.copy()
                shaped[found[0]] = 0


def _numbers(slices: int, begun: Begun) -> list[tuple[int, Answers]]:
    return [(at * _SLICE, begun.answers) for at in range(slices)]


def _head(model: Model, job: Job) -> Head:
    name = getattr(job.options, "activation", None)
    found = model.head.with_activation(Activation(name) if name else None)
    if job.task is Task.RERANK and found.activation is Activation.SOFTMAX:
        raise InvalidInput("activation", "softmax makes the score of every document 1; leave it out to rank")
    return found


def _table(model: Model, job: Job) -> QueryTable | None:
    """What texts are looked up in, for a sparse encoder whose queries need no model."""
    if job.task is not Task.EMBED_SPARSE:
        return None
    name = cast(Any, job.options).input_type
    return model.table_for(InputType(name) if name else None)


def _batch_tokens(model: Model, config: EngineConfig) -> int:
    """Most tokens of a batch, padding included."""
    tuned = next((each.batch_tokens for each in model.manifest.variants if each.name == model.variant), 0)
    if is_packed(model.runtime):
        return min(config.cuda_batch_token_limit(tuned), model.runtime.shapes.tokens[-1])
    return config.batch_token_limit(tuned)


def _end_process(stuck: RunStuck) -> None:
    print(f"pairwire: {stuck}; start again: what is finished is kept", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(_STUCK)
