"""Input files -> shards, each of which becomes one part of the output -> windows, each of which is computed at once.

A shard is some consecutive rows of one file. Where shards and windows begin depends on the input alone, so that a run
that was killed goes on with the same ones. No window reaches into two shards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from .inputs import InputFile
from .job import Task
from .lines import Piece
from .sources import PIECE_ROWS, Source

SHARD_ROWS = {Task.SCORE: 32_768, Task.RERANK: 1024, Task.EMBED: 32_768, Task.EMBED_SPARSE: 8192}
"""Rows of a shard, unless the caller says otherwise. What it computes stays in memory until it is written."""
DATA = "data"
"""The directory with the parts and nothing else, so that it can be read as one table."""
WINDOW_ROWS = 8192
WINDOW_BYTES = 16 << 20
"""A window ends with whichever comes first. It is sorted by length: larger ones have less padding and take memory."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows ``start`` to ``start`` + the shard's size of one file, or to its end."""

    file: InputFile
    file_number: int
    number: int
    """Among the shards of its file, from 0."""
    start: int
    """Its first row."""

    def part(self, suffix: str) -> str:
        """The name of its output, below the directory of the run."""
        return f"{DATA}/part-{self.file_number:05d}-{self.number:05d}.{suffix}"


@dataclass(slots=True)
class Window:
    """Rows of a shard that are computed together."""

    shard: Shard
    start: int
    """Its first row, in the file."""
    table: pa.Table
    bad: dict[int, str] = field(default_factory=dict)
    """Row of the window -> what is wrong with it."""


class Reader:
    """Rows of a source in pieces of any size, one after the other, however its file is divided."""

    def __init__(self, source: Source, start: int) -> None:
        self.at = start
        """The row that comes next."""
        self._pieces = source.pieces(start)
        self._schema = source.schema
        self._held: list[Piece] = []

    def take(self, rows: int) -> Piece:
        """So many rows, or those that are left."""
        taken: list[Piece] = []
        missing = rows
        while missing and (piece := self._next()) is not None:
            if piece.batch.num_rows > missing:
                piece, rest = _split(piece, missing)
                self._held.append(rest)
            taken.append(piece)
            missing -= piece.batch.num_rows
        self.at += rows - missing
        return _joined(taken, self._schema)

    def _next(self) -> Piece | None:
        return self._held.pop() if self._held else next(self._pieces, None)


def windows_of(
    file: InputFile, number: int, source: Source, shard_rows: int, is_mine: Callable[[Shard], bool]
) -> Iterator[Window]:
    """The windows of those shards of a file that are to be done. What lies between is skipped, not kept."""
    reader = Reader(source, 0)
    for at in itertools.count():
        shard = Shard(file, number, at, at * shard_rows)
        if source.rows is not None and shard.start >= source.rows:
            return
        if is_mine(shard):
            if reader.at != shard.start:
                reader = Reader(source, shard.start)
            yield from _windows(shard, reader, shard_rows)
            if reader.at < shard.start + shard_rows:
                return
        elif source.rows is None and not Reader(source, shard.start).take(1).batch.num_rows:
            return


def _windows(shard: Shard, reader: Reader, shard_rows: int) -> Iterator[Window]:
    """Where they begin must not depend on how the file is divided, or on where reading began."""
    held: list[Piece] = []
    rows = size = 0
    while True:
        start = reader.at - rows
        wanted = min(PIECE_ROWS, shard.start + shard_rows - reader.at)
        piece = reader.take(wanted)
        if piece.batch.num_rows:
            held.append(piece)
            rows += piece.batch.num_rows
            size += _size(piece.batch)
        ended = piece.batch.num_rows < wanted or reader.at == shard.start + shard_rows
        if rows and (ended or rows >= WINDOW_ROWS or size >= WINDOW_BYTES):
            whole = _joined(held, held[0].batch.schema)
            yield Window(shard, start, pa.Table.from_batches([whole.batch]), whole.bad)
            held, rows, size = [], 0, 0
        if ended:
            return


def _split(piece: Piece, rows: int) -> tuple[Piece, Piece]:
    first = {row: reason for row, reason in piece.bad.items() if row < rows}
    rest = {row - rows: reason for row, reason in piece.bad.items() if row >= rows}
    return Piece(piece.batch.slice(0, rows), first), Piece(piece.batch.slice(rows), rest)


def _joined(pieces: list[Piece], schema: pa.Schema) -> Piece:
    """One piece; what it holds lies in memory of its own, so that nothing larger is kept."""
    bad: dict[int, str] = {}
    begin = 0
    for piece in pieces:
        bad.update({begin + row: reason for row, reason in piece.bad.items()})
        begin += piece.batch.num_rows
    return Piece(pa.concat_batches([piece.batch for piece in pieces]) if pieces else _empty(schema), bad)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], type=kind) for kind in schema.types], schema=schema)


def _size(batch: pa.RecordBatch) -> int:
    """About its bytes, in a way that depends on its values alone: Arrow's own count depends on how they lie."""
    return sum(_column_size(column) for column in batch.columns)


def _column_size(column: pa.Array) -> int:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        return pc.sum(pc.binary_length(column)).as_py() or 0
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _column_size(column.flatten())
    return 8 * len(column)
