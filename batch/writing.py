"""Parts of the output: written aside, and there whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pairwire.server.reasons import reason_of

from .errors import InputUnusable, OutputFailed
from .inputs import ARROW, CSV, JSONL, PARQUET, TSV
from .lines import LINE

OUTPUTS = (PARQUET, ARROW, JSONL, CSV)
_TEMPORARY = ".tmp"


class TableWriter(Protocol):
    """Takes tables of one schema, one after the other."""

    def write(self, table: pa.Table) -> None:
        """Some rows."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class Part:
    """One part under way. `finish` gives it its name; anything else leaves nothing."""

    def __init__(self, path: Path, form: str, schema: pa.Schema) -> None:
        """Begins a part of a format and a schema.

        Raises:
            OutputFailed: the disk is full, or the directory is not writable.
        """
        self._path = path
        self._aside = path.with_name(f".{path.name}{_TEMPORARY}")
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            self._file = self._aside.open("w+b")
            self._writer: TableWriter = _WRITERS[form](self._file, schema)

    def write(self, table: pa.Table) -> None:
        """Appends rows.

        Raises:
            OutputFailed: as when it began.
        """
        with writing(self._path):
            self._writer.write(table)

    def finish(self) -> tuple[int, str]:
        """Its bytes and sha256, once it is on the disk under its name.

        Raises:
            OutputFailed: as when it began; there is no part then.
        """
        with writing(self._path):
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.seek(0)
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
            self._aside.replace(self._path)
            sync_directory(self._path.parent)
        return size, digest

    def drop(self) -> None:
        """Removes what there is of it, unless it is finished."""
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._aside.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Removes parts that a run which was killed had under way."""
    for path in directory.glob(f".part-*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Makes names of files in it survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_line(value: object) -> bytes:
    """One line of JSON in UTF-8; what UTF-8 cannot hold, as escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str).encode() + b"\n"
    except UnicodeEncodeError:  # lone surrogates, which JSON can hold
        return json.dumps(value, default=str).encode() + b"\n"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says what could not be written, and that nothing is lost.

    Raises:
        OutputFailed: instead of what Arrow and the system raise.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise OutputFailed(
            f"{path}: cannot be written: {reason_of(error)}; what is finished is kept: start again when that is mended"
        ) from error


def check_output(form: str, schema: pa.Schema) -> None:
    """Whether a format can hold such columns.

    Raises:
        InputUnusable: CSV, which has no lists.
    """
    lists = [field.name for field in schema if pa.types.is_nested(field.type)]
    if form in (CSV, TSV) and lists:
        raise InputUnusable(f"CSV cannot hold the lists of column {lists[0]!r}; give --format parquet, arrow or jsonl")


class _Parquet:
    """A row group for each table."""

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Arrow:
    """The IPC file format."""

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(file, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Json:
    """An object a line; a line that was kept whole gets the results as further fields."""

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self._file = file
        self._shorts = {field.name for field in schema if _is_short(field.type)}
        self._whole = LINE in schema.names
        self._results = schema.names[schema.names.index(LINE) + 1 :] if self._whole else schema.names

    def write(self, table: pa.Table) -> None:
        columns = {name: self._values(table, name) for name in self._results}
        lines = table.column(LINE).to_pylist() if self._whole else [None] * table.num_rows
        for row, line in enumerate(lines):
            record = _fields(line) if self._whole else {}
            record |= {name: values[row] for name, values in columns.items()}
            self._file.write(json_line(record))

    def close(self) -> None:
        pass

    def _values(self, table: pa.Table, name: str) -> list[Any]:
        values: list[Any] = table.column(name).to_pylist()
        if name not in self._shorts:
            return values
        short = np.float16 if _numbers(table.schema.field(name).type) == pa.float16() else np.float32
        return [_shortest(value, short) for value in values]


def _fields(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {"unreadable": line}
    return value if isinstance(value, dict) else {"unreadable": line}


def _numbers(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_nested(kind) and hasattr(kind, "value_type") else kind


def _is_short(kind: pa.DataType) -> bool:
    return _numbers(kind) in (pa.float16(), pa.float32())


def _shortest(value: Any, kind: Any) -> Any:
    """The shortest decimals that are these numbers: 0.1 and not 0.10000000149011612."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_shortest(each, kind) for each in value]
    return float(str(kind(value)))


class _Csv:
    """With the names of the columns first."""

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        import io

        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(schema.names)
        self._json = _Json(None, schema)

    def write(self, table: pa.Table) -> None:
        columns = [self._json._values(table, name) for name in table.column_names]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


_WRITERS: dict[str, Callable[[Any, pa.Schema], TableWriter]] = {
    PARQUET: _Parquet,
    ARROW: _Arrow,
    JSONL: _Json,
    CSV: _Csv,
}
