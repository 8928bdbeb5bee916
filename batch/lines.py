"""JSON lines and CSV, line by line: each row has the columns of the file, or a reason why it has not.

Arrow's own readers stop at the first line that is wrong, or drop it. Here one bad line is one bad row.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from .errors import InputUnusable
from .job import Job, Task

LINE = "\0line"
"""The column that holds whole lines of JSON, where nobody needs their other fields as columns."""
SAMPLE = 1000
"""Rows of JSON lines that say what columns there are."""


@dataclass(slots=True)
class Piece:
    """Some rows of an input, one after the other."""

    batch: pa.RecordBatch
    bad: dict[int, str] = field(default_factory=dict)
    """Row of the piece -> what is wrong with it."""


@dataclass(slots=True)
class Record:
    """One line of JSON."""

    fields: dict[str, Any]
    line: str
    wrong: str = ""


def parse(raw: bytes, reserved: Iterable[str]) -> Record:
    """A line; ``reserved`` names must not be among its fields."""
    try:
        line = raw.decode("utf-8-sig" if raw.startswith(b"\xef\xbb\xbf") else "utf-8").strip()
    except UnicodeDecodeError as error:
        shown = raw.decode("utf-8", "backslashreplace").strip()
        return Record({}, shown, f"not valid UTF-8 at byte {error.start + 1}")
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return Record({}, line, f"not JSON: {error.msg} at character {error.pos + 1}")
    except RecursionError:
        return Record({}, line, "not JSON: nested too deeply")
    except ValueError as error:  # of numbers with thousands of digits
        return Record({}, line, f"not JSON: {error}")
    if not isinstance(value, dict):
        return Record({}, line, f"expected an object of JSON, got {type(value).__name__}")
    taken = next((name for name in reserved if name in value), None)
    return Record(value, line, f"has a field {taken!r}, as a result is called" if taken else "")


def check_fields(sample: Sequence[Record], job: Job, name: str) -> None:
    """Whether the fields that a job reads are there at all; single lines may lack them.

    Raises:
        InputUnusable: none of the sample has a field; the sentence lists those of the first line.
    """
    objects = [record.fields for record in sample if record.fields]
    for column in job.columns:
        if objects and not any(column in fields for fields in objects):
            known = ", ".join(map(repr, list(objects[0])[:20]))
            raise InputUnusable(f"{name}: no column {column!r} in the first {len(sample)} rows; the first has {known}")


def json_schema(sample: Sequence[Record], job: Job, *, typed: bool) -> pa.Schema:
    """Columns of JSON lines: those that the job reads and, where ``typed``, all others that the sample has.

    Others than numbers, texts, booleans and lists of them become text: their JSON. Not ``typed``: whole lines.
    """
    fields = [pa.field(name, _job_type(job, at)) for at, name in enumerate(job.columns)]
    if not typed:
        return pa.schema([*fields, pa.field(LINE, pa.string())])
    names = dict.fromkeys(name for record in sample for name in record.fields if name not in job.columns)
    return pa.schema([*fields, *(pa.field(name, _guessed(sample, name)) for name in names)])


def json_piece(records: Sequence[Record], schema: pa.Schema, job: Job) -> Piece:
    """Rows of JSON lines. A value that its column cannot have is null, and its row bad."""
    bad = {row: record.wrong for row, record in enumerate(records) if record.wrong}
    arrays = []
    for column in schema:
        if column.name == LINE:
            values: list[Any] = [record.line for record in records]
        else:
            values = [record.fields.get(column.name) for record in records]
            if pa.types.is_string(column.type) and column.name not in job.columns:
                values = [None if each is None else each if isinstance(each, str) else _json(each) for each in values]
        array, wrong = array_of(values, column.type, column.name)
        arrays.append(array)
        for row, reason in wrong.items():
            bad.setdefault(row, reason)
    if LINE not in schema.names:
        known = set(schema.names)
        for row, record in enumerate(records):
            if not record.fields.keys() <= known:
                new = next(name for name in record.fields if name not in known)
                bad.setdefault(row, f"field {new!r} is not in the first {SAMPLE} rows; write JSON lines to keep it")
    return Piece(pa.RecordBatch.from_arrays(arrays, schema=schema), bad)


def array_of(values: Sequence[Any], kind: pa.DataType, name: str) -> tuple[pa.Array, dict[int, str]]:
    """An array, and the rows whose value it cannot have, which are null in it."""
    try:
        return pa.array(values, type=kind), {}
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        kept: list[Any] = []
        wrong: dict[int, str] = {}
        for row, value in enumerate(values):
            try:
                pa.array([value], type=kind)
            except UnicodeEncodeError as error:
                wrong[row] = f"{name}: not valid Unicode at character {error.start + 1}"
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                wrong[row] = f"{name}: expected {_called(kind)}, got {type(value).__name__}"
            kept.append(None if row in wrong else value)
        return pa.array(kept, type=kind), wrong


def csv_rows(text: Iterable[str], delimiter: str, name: str) -> tuple[list[str], Iterator[list[str]]]:
    """The names of the columns, from the first line, and the rows.

    Raises:
        InputUnusable: no line, a column without a name, two of one name; while iterating, no CSV at all.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(text, delimiter=delimiter, strict=False)
    names = next(_checked(reader, name), None)
    if names is None:
        raise InputUnusable(f"{name}: empty; the first line must name the columns")
    if len(set(names)) < len(names) or not all(names):
        raise InputUnusable(f"{name}: the first line must name each column once, and has {names[:10]}")
    return names, _checked(reader, name)


def csv_piece(rows: Sequence[list[str]], schema: pa.Schema) -> Piece:
    """Rows of CSV, all of them text as it stands there."""
    bad: dict[int, str] = {}
    width = len(schema)
    for at, row in enumerate(rows):
        if len(row) != width:
            bad[at] = f"{len(row)} columns instead of {width}"
    columns = itertools.zip_longest(*rows, *[[None] * width]) if rows else []
    whole = [[row[at] if at < len(row) else None for row in rows] for at in range(width)] if bad else list(columns)
    arrays = []
    for column, values in zip(schema, whole or [[]] * width, strict=False):
        array, wrong = array_of(list(values)[: len(rows)], column.type, column.name)
        arrays.append(array)
        for at, reason in wrong.items():
            bad.setdefault(at, reason)
    return Piece(pa.RecordBatch.from_arrays(arrays, schema=schema), bad)


def _checked(reader: Iterator[list[str]], name: str) -> Iterator[list[str]]:
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise InputUnusable(f"{name}: no CSV: {error}") from error


def _job_type(job: Job, at: int) -> pa.DataType:
    return pa.list_(pa.string()) if job.task is Task.RERANK and at == 1 else pa.string()


def _guessed(sample: Sequence[Record], name: str) -> pa.DataType:
    values = [record.fields.get(name) for record in sample]
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        return pa.string()
    inner = kind.value_type if pa.types.is_list(kind) else kind
    plain = pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)
    return kind if plain or (pa.types.is_string(inner) and pa.types.is_list(kind)) else pa.string()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _called(kind: pa.DataType) -> str:
    return "text" if pa.types.is_string(kind) else "a list of texts" if kind == pa.list_(pa.string()) else str(kind)
