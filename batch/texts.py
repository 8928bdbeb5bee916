"""Columns of a table -> the texts and pairs that a model is asked about, and why some rows cannot be asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from .errors import InputUnusable
from .job import Job, Task

Item = tuple[str, str] | str
"""What one row of a model is made of."""


@dataclass(slots=True)
class Asked:
    """What is asked for the rows of a table."""

    items: list[Item] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """[rows] how many of the items belong to each row: one, or for rerank its documents; none of a bad row."""
    bad: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot be asked about."""

    @property
    def owners(self) -> list[int]:
        """[items] the row of each."""
        return [row for row, count in enumerate(self.counts) for _ in range(count)]


def check_schema(schema: pa.Schema, job: Job, name: str) -> None:
    """Whether the columns of a job are there and can be texts.

    Raises:
        InputUnusable: the sentence says which column, and what there is.
    """
    for column, is_list in zip(job.columns, _are_lists(job.task), strict=True):
        if schema.get_field_index(column) < 0:
            known = ", ".join(map(repr, schema.names[:20])) or "none"
            raise InputUnusable(f"{name}: no column {column!r} (or several); the columns are {known}")
        found = schema.field(column).type
        if not (_is_texts(found) if is_list else _is_text(found)):
            wanted = "lists of text" if is_list else "text"
            raise InputUnusable(f"{name}: column {column!r} is {found}, expected {wanted}")


def read_texts(table: pa.Table, job: Job, known_bad: Mapping[int, str] | None = None) -> Asked:
    """The texts of a table's rows, in order; ``known_bad`` are rows whose fault was found before.

    A row with a missing text, a text that is not valid Unicode, or no documents, is bad.
    """
    first, *rest = [_values(table.column(column)) for column in job.columns]
    seconds: Sequence[Any] = rest[0] if rest else [None] * len(first)
    asked = Asked(bad=dict(known_bad or {}))
    for row, (one, two) in enumerate(zip(first, seconds, strict=True)):
        if row in asked.bad:
            asked.counts.append(0)
            continue
        try:
            items = _items(job, one, two)
        except ValueError as error:
            asked.bad[row] = str(error)
            items = []
        asked.items += items
        asked.counts.append(len(items))
    return asked


def _items(job: Job, one: object, two: object) -> list[Item]:
    head = _text(one, job.columns[0])
    if job.task is Task.SCORE:
        return [(head, _text(two, job.columns[1]))]
    if job.task is not Task.RERANK:
        return [head]
    name = job.columns[1]
    if not isinstance(two, list):
        raise ValueError(f"{name}: missing" if two is None else f"{name}: expected a list, got {type(two).__name__}")
    if not two:
        raise ValueError(f"{name}: empty; a query needs at least one document")
    return [(head, _text(document, f"{name}[{at}]")) for at, document in enumerate(two)]


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{name}: not valid Unicode, a lone surrogate at character {error.start + 1}"
                ) from None
        return value
    if value is None:
        raise ValueError(f"{name}: missing")
    if isinstance(value, _NotUnicode):
        raise ValueError(f"{name}: not valid UTF-8")
    raise ValueError(f"{name}: expected text, got {type(value).__name__}")


class _NotUnicode:
    """Stands for a text whose bytes are no UTF-8."""


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; a text that is no UTF-8 makes only its own row bad."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return found


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NotUnicode()


def _are_lists(task: Task) -> tuple[bool, ...]:
    if task is Task.RERANK:
        return (False, True)
    return (False, False) if task is Task.SCORE else (False,)


def _is_text(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return any(
        test(found)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )


def _is_texts(found: pa.DataType) -> bool:
    if pa.types.is_null(found):
        return True
    is_list = any(
        test(found)
        for test in (
            pa.types.is_list,
            pa.types.is_large_list,
            pa.types.is_fixed_size_list,
            pa.types.is_list_view,
            pa.types.is_large_list_view,
        )
    )
    return is_list and _is_text(found.value_type)
