"""Items -> answers through an engine: in runs, several in flight, bad items found and left out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pairwire.server.engine import Engine, ModelInfo
from pairwire.server.engine.encodings import Encoding, check_encoding, encode_vectors
from pairwire.server.errors import InvalidInput

from .answers import Answers, Shape, SparseRow, vector_width
from .engine_options import embed_options, score_options, sparse_options
from .job import KINDS, Job, Options, Task
from .texts import Item

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import ModelManifest

RUN = 256
"""Items that are given to the engine at once."""
IN_FLIGHT = 4
"""Runs that an engine has at once: they keep its workers busy while the next are read."""

_INDEX = re.compile(r"(?:pairs|texts)\[(\d+)\]")


def shape_of(info: ModelInfo, job: Job) -> Shape:
    """What a job's results look like with a model.

    Raises:
        pairwire.server.errors.WrongModelKind, InvalidInput: the model cannot give them.
    """
    if job.task is Task.EMBED:
        check_encoding(encoding_of(job.options), info, embed_options(cast(Any, job.options)))
    return shape_of_manifest(info.manifest, info.name, job)


def shape_of_manifest(manifest: ModelManifest, name: str, job: Job) -> Shape:
    """The same by the manifest alone, as far as that says it.

    Raises:
        pairwire.server.errors.InvalidInput: the model cannot give them.
    """
    if job.task in (Task.SCORE, Task.RERANK):
        labels = tuple(manifest.labels)
        if job.task is Task.RERANK and len(labels) > 1:
            raise InvalidInput("model", f"{name!r} has {len(labels)} labels; only one score can rank")
        return Shape(labels=labels, width=len(labels))
    if job.task is Task.EMBED_SPARSE:
        return Shape(width=manifest.dimensions)
    options = cast(Any, job.options)
    dimensions = options.dimensions or manifest.default_dimensions or manifest.dimensions
    if dimensions > manifest.dimensions:
        raise InvalidInput("dimensions", f"{dimensions} is more than the {manifest.dimensions} numbers of a vector")
    dtype = "uint8" if options.encoding == "binary" else options.encoding
    return Shape(width=vector_width(dimensions, options.encoding), dtype=dtype)


class Answering:
    """A job on an engine. Its coroutine belongs to the engine's event loop."""

    def __init__(self, engine: Engine, job: Job, in_flight: asyncio.Semaphore) -> None:
        """``in_flight`` bounds the runs of all who share the engine; errors as `shape_of`."""
        self._engine = engine
        self._job = job
        self._in_flight = in_flight
        self._info = engine.find(job.options.model, KINDS[job.task])
        self.shape = shape_of(self._info, job)

    async def answer(self, items: Sequence[Item]) -> Answers:
        """Answers to items of any number.

        Raises:
            pairwire.server.errors.PairwireError: the engine fails, or an option is wrong for the model.
        """
        answers = Answers.empty(self._job, self.shape, len(items))
        async with asyncio.TaskGroup() as group:
            for begin in range(0, len(items), RUN):
                await self._in_flight.acquire()
                group.create_task(self._run(items[begin : begin + RUN], begin, answers))
        return answers

    async def _run(self, items: Sequence[Item], begin: int, answers: Answers) -> None:
        """Writes the answers to one run at ``begin``; what cannot be read is taken out, and the rest asked again."""
        at = list(range(len(items)))
        try:
            while at:
                try:
                    values = await self._ask([items[each] for each in at], answers)
                except InvalidInput as error:
                    found = bad_item(error)
                    if found is None:
                        raise
                    answers.failed[begin + at.pop(found[0])] = found[1]
                else:
                    answers.values[[begin + each for each in at]] = values
                    return
        finally:
            self._in_flight.release()

    async def _ask(self, items: list[Any], answers: Answers) -> Any:
        task, options, name = self._job.task, self._job.options, self._info.name
        if task in (Task.SCORE, Task.RERANK):
            scored = await self._engine.score(items, model=name, options=score_options(cast(Any, options)))
            usage, values = scored.usage, cast(Any, scored.scores)
        elif task is Task.EMBED:
            embedded = await self._engine.embed(items, model=name, options=embed_options(cast(Any, options)))
            usage, values = embedded.usage, encode_vectors(embedded.embeddings, encoding_of(options), self._info)
        else:
            sparse = await self._engine.embed_sparse(items, model=name, options=sparse_options(cast(Any, options)))
            usage, values = sparse.usage, objects(split_sparse(sparse.indices, sparse.values, sparse.counts))
        answers.usages.append(usage.tokens)
        answers.padding.append(usage.padded_tokens)
        return values


def encoding_of(options: Options) -> Encoding:
    """Of the vectors that are asked for."""
    return Encoding(cast(Any, options).encoding)


def bad_item(error: Exception) -> tuple[int, str] | None:
    """Which item of a call an InvalidInput blames, and the reason; None where it blames the whole call."""
    field, reason = getattr(error, "field", ""), getattr(error, "reason", str(error))
    found = _INDEX.match(field)
    return (int(found[1]), f"{field[found.end() :].lstrip('.') or 'text'}: {reason}") if found else None


def split_sparse(indices: Any, values: Any, counts: Any) -> list[SparseRow]:
    """Rows of sparse vectors that lie one after the other."""
    ends = np.cumsum(counts)[:-1]
    return list(zip(np.split(indices, ends), np.split(values, ends), strict=True))


def objects(rows: Sequence[object]) -> np.ndarray[Any, np.dtype[np.object_]]:
    """[rows] objects; numpy would make a matrix of rows of equal length."""
    array = np.empty(len(rows), dtype=object)
    for at, row in enumerate(rows):
        array[at] = row
    return array
