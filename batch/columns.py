"""Answers -> columns that are put next to those of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairwire.server.engine.outputs.ranking import rank

from .answers import Answers, Shape
from .errors import InputUnusable
from .job import Job, Task
from .texts import Asked

_NUMBERS = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "uint8": pa.uint8()}


def result_schema(job: Job, shape: Shape) -> pa.Schema:
    """Names and types of the columns that a job adds.

    score: ``score`` float32, or for several labels ``score_LABEL`` each. rerank: ``indices`` and ``scores``, lists
    of int32 and float32, best first. embed: ``embedding``, a list of fixed size. embed-sparse: ``indices`` and
    ``values``, lists of uint32 and float32. A row that failed has nulls.
    """
    if job.task is Task.SCORE:
        names = ["score"] if shape.width == 1 else [f"score_{label}" for label in shape.labels]
        return pa.schema([(name, pa.float32()) for name in names])
    if job.task is Task.RERANK:
        return pa.schema([("indices", pa.list_(pa.int32())), ("scores", pa.list_(pa.float32()))])
    if job.task is Task.EMBED:
        return pa.schema([("embedding", pa.list_(_NUMBERS[shape.dtype], shape.width))])
    return pa.schema([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])


def check_names(schema: pa.Schema, job: Job, shape: Shape, name: str) -> None:
    """Whether the results have room beside the columns of an input.

    Raises:
        InputUnusable: a column has the name of a result.
    """
    taken = sorted(set(schema.names) & set(result_schema(job, shape).names))
    if taken:
        raise InputUnusable(f"{name}: has a column {taken[0]!r} already, as {job.task} calls its result; rename it")


def with_results(table: pa.Table, job: Job, shape: Shape, asked: Asked, answers: Answers) -> pa.Table:
    """The table with the columns of `result_schema`; notes rows whose items failed in ``asked.bad``."""
    owners = asked.owners
    for item in sorted(answers.failed):
        asked.bad.setdefault(owners[item], answers.failed[item])
    good = np.ones(table.num_rows, dtype=bool)
    good[list(asked.bad)] = False
    schema = result_schema(job, shape)
    for field, array in zip(schema, _arrays(job, schema, asked, answers, good), strict=True):
        table = table.append_column(field, array)
    return table


def _arrays(job: Job, schema: pa.Schema, asked: Asked, answers: Answers, good: npt.NDArray[np.bool_]) -> list[pa.Array]:
    if job.task is Task.RERANK:
        return _rankings(job, schema, asked, answers, good)
    begins = np.concatenate([[0], np.cumsum(asked.counts)])[:-1].astype(np.intp)
    at = begins[good]
    if job.task is Task.EMBED_SPARSE:
        rows = _spread([answers.values[each] for each in at], good)
        return [_lists([row[part] if row else None for row in rows], schema.types[part]) for part in (0, 1)]
    values = np.zeros((len(good), answers.values.shape[1]), answers.values.dtype)
    values[good] = answers.values[at]
    missing = pa.array(~good) if not good.all() else None
    if job.task is Task.SCORE:
        return [pa.array(np.ascontiguousarray(values[:, label]), mask=~good) for label in range(values.shape[1])]
    flat = pa.array(values.reshape(-1), type=schema.types[0].value_type)
    return [pa.FixedSizeListArray.from_arrays(flat, type=schema.types[0], mask=missing)]


def _rankings(
    job: Job, schema: pa.Schema, asked: Asked, answers: Answers, good: npt.NDArray[np.bool_]
) -> list[pa.Array]:
    orders: list[npt.NDArray[Any]] = []
    scores: list[npt.NDArray[Any]] = []
    begin = 0
    for count, is_good in zip(asked.counts, good, strict=True):
        if is_good:
            found = answers.values[begin : begin + count, 0]
            order = rank(found, job.top_k)
            orders.append(np.array(order, np.int32))
            scores.append(found[order])
        begin += count
    return [_lists(_spread(part, good), kind) for part, kind in zip((orders, scores), schema.types, strict=True)]


def _spread(rows: Sequence[Any], good: npt.NDArray[np.bool_]) -> list[Any]:
    """The rows at the places that are good, None at the others."""
    left = iter(rows)
    return [next(left) if each else None for each in good]


def _lists(rows: Sequence[npt.NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    """A list array; None is null."""
    counts = [0 if row is None else len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    held = [row for row in rows if row is not None]
    flat = np.concatenate(held) if held else np.zeros(0, np.int32)
    missing = pa.array([row is None for row in rows]) if len(held) < len(rows) else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, type=kind.value_type), type=kind, mask=missing)
