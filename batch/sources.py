"""One input file, piece by piece from any row on, in memory that does not depend on its size."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import fsspec
import pyarrow as pa

from pairwire.server.reasons import reason_of

from .errors import InputUnusable
from .inputs import ARROW, JSONL, PARQUET, TSV, InputFile
from .job import Job
from .lines import SAMPLE, Piece, check_fields, csv_piece, csv_rows, json_piece, json_schema, parse

PIECE_ROWS = 512
_BUFFER_BYTES = 1 << 20


class Source(Protocol):
    """Rows of a file."""

    schema: pa.Schema
    names: tuple[str, ...]
    """All columns, also those that the schema keeps inside lines."""
    rows: int | None
    """How many there are, where that is known without reading them."""

    def pieces(self, start: int) -> Iterator[Piece]:
        """From row ``start`` to the end, at most `PIECE_ROWS` each; none where there is no such row."""
        ...


def open_source(file: InputFile, job: Job, *, typed: bool, reserved: tuple[str, ...] = ()) -> Source:
    """The source of a file.

    Args:
        file: the file.
        job: whose columns are read.
        typed: fields of JSON lines become columns; else whole lines are kept.
        reserved: names that fields must not have.

    Raises:
        InputUnusable: it cannot be read, or is not what its name says.
    """
    kinds: dict[str, Callable[[], Source]] = {
        PARQUET: lambda: ParquetSource(file),
        ARROW: lambda: ArrowSource(file),
        JSONL: lambda: JsonSource(file, job, typed, reserved),
    }
    with reading(file):
        return kinds.get(file.format, lambda: CsvSource(file))()


@contextmanager
def reading(file: InputFile) -> Iterator[None]:
    """Says which file it was that could not be read.

    Raises:
        InputUnusable: instead of what Arrow, fsspec and the system raise.
    """
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError, ImportError, ValueError) as error:
        raise InputUnusable(f"{file.url}: cannot be read as {file.format}: {reason_of(error)}") from error


def opened(file: InputFile) -> Any:
    """Its bytes, decompressed where its name says so. Columnar formats are read at any place, and so as they are."""
    compression = None if file.format in (PARQUET, ARROW) else "infer"
    return fsspec.open(file.url, "rb", compression=compression)


class ParquetSource:
    """By row group; only pages that are needed are in memory."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        with self._parquet() as parquet:
            self.schema = parquet.schema_arrow
            self.rows: int | None = parquet.metadata.num_rows
            counts = [parquet.metadata.row_group(at).num_rows for at in range(parquet.metadata.num_row_groups)]
        self._begins = [0, *itertools.accumulate(counts)]
        self.names = tuple(self.schema.names)

    def pieces(self, start: int) -> Iterator[Piece]:
        """Reads from the row group that holds ``start``."""
        groups = [at for at, end in enumerate(self._begins[1:]) if end > start]
        if not groups:
            return
        skip = start - self._begins[groups[0]]
        with reading(self._file), self._parquet() as parquet:
            for batch in parquet.iter_batches(PIECE_ROWS, row_groups=groups, use_threads=False):
                left = batch.slice(min(skip, batch.num_rows))
                skip -= batch.num_rows - left.num_rows
                if left.num_rows:
                    yield Piece(left)

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with opened(self._file) as stream, pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False) as found:
            yield found


class ArrowSource:
    """Arrow IPC, as a file or a stream."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self.rows: int | None = None
        with opened(file) as stream:
            self._is_file = stream.read(6) == b"ARROW1"
            stream.seek(0)
            reader = self._reader(stream)
            self.schema = reader.schema
            if self._is_file:
                self.rows = reader.count_rows()
        self.names = tuple(self.schema.names)

    def pieces(self, start: int) -> Iterator[Piece]:
        """Batch by batch; those before ``start`` are read and left."""
        with reading(self._file), opened(self._file) as stream:
            for batch in _batches(self._reader(stream)):
                for begin in range(min(start, batch.num_rows), batch.num_rows, PIECE_ROWS):
                    yield Piece(batch.slice(begin, PIECE_ROWS))
                start = max(0, start - batch.num_rows)

    def _reader(self, stream: Any) -> Any:
        return pa.ipc.open_file(stream) if self._is_file else pa.ipc.open_stream(stream)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(at) for at in range(reader.num_record_batches))
    else:
        yield from reader


class JsonSource:
    """JSON lines: an object a line; blank lines are no rows."""

    def __init__(self, file: InputFile, job: Job, typed: bool, reserved: tuple[str, ...]) -> None:
        self._file, self._job, self._reserved = file, job, reserved
        self.rows: int | None = None
        with opened(file) as stream:
            sample = [parse(raw, ()) for raw in itertools.islice(_lines(stream), SAMPLE)]
        check_fields(sample, job, file.url)
        self.schema = json_schema(sample, job, typed=typed)
        self.names = tuple(next((record.fields for record in sample if record.fields), ()))

    def pieces(self, start: int) -> Iterator[Piece]:
        """Lines before ``start`` are counted and not parsed."""
        with reading(self._file), opened(self._file) as stream:
            lines = itertools.islice(_lines(stream), start, None)
            while raw := list(itertools.islice(lines, PIECE_ROWS)):
                yield json_piece([parse(each, self._reserved) for each in raw], self.schema, self._job)


def _lines(stream: Any) -> Iterator[bytes]:
    return (line for line in stream if line.strip())


class CsvSource:
    """CSV or TSV, the first line names the columns; every value is the text that stands there."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self.rows: int | None = None
        with self._opened() as (names, _):
            self.names = tuple(names)
        self.schema = pa.schema([(name, pa.string()) for name in self.names])

    def pieces(self, start: int) -> Iterator[Piece]:
        """Rows before ``start`` are read and left."""
        with reading(self._file), self._opened() as (_, rows):
            left = itertools.islice(rows, start, None)
            while some := list(itertools.islice(left, PIECE_ROWS)):
                yield csv_piece(some, self.schema)

    @contextmanager
    def _opened(self) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
        delimiter = "\t" if self._file.format == TSV else ","
        with opened(self._file) as stream:
            # What is no UTF-8 becomes lone surrogates, which make only their own row bad.
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
            yield csv_rows(text, delimiter, self._file.url)
