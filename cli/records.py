"""Lines -> pairs, queries and texts, one at a time: JSON lines, TSV or plain text, from a file or stdin.

Every error names the line. Nothing is read ahead but the first line, which decides the format.
"""

from __future__ import annotations

import argparse
import bisect
import codecs
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from .exits import BadInput

T = TypeVar("T")

JSONL, TSV, TEXT = "jsonl", "tsv", "text"


@dataclass(frozen=True, slots=True)
class Query:
    """A query with the documents to rank."""

    query: str
    documents: list[str]


class LineNumbers:
    """Which line each record came from; takes memory only where lines were skipped."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._offsets: list[int] = []

    def note(self, index: int, line: int) -> None:
        """Record ``index`` (from 0, ascending) stands at ``line`` (from 1)."""
        if not self._offsets or self._offsets[-1] != line - index:
            self._starts.append(index)
            self._offsets.append(line - index)

    def of(self, index: int) -> int | None:
        """The line of a record, None where it came from no file."""
        at = bisect.bisect_right(self._starts, index) - 1
        return index + self._offsets[at] if at >= 0 else None


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """Records to be read once."""

    records: Iterator[T]
    total: int | None = None
    """How many there are, where that is known without reading them."""
    lines: LineNumbers = field(default_factory=LineNumbers)


def from_arguments(records: Sequence[T]) -> Source[T]:
    """Records from the command line."""
    return Source(iter(records), total=len(records))


def single(args: argparse.Namespace) -> Source[str]:
    """Texts as arguments, or those of the input.

    Raises:
        BadInput: both, or as ``texts``.
    """
    if not args.texts:
        return texts(args.input, args.format)
    if args.input is not None:
        raise BadInput("texts as arguments and --input: give one of them")
    return from_arguments(args.texts)


def pairs(path: Path | None, form: str | None) -> Source[tuple[str, str]]:
    """Pairs of texts: ``["a", "b"]``, ``{"first": "a", "second": "b"}`` or ``a<TAB>b`` a line.

    Raises:
        BadInput: no such file; while iterating, a line that is no pair.
    """
    stream = _open(path)
    numbered = _lines(stream)
    form, numbered = _detect(numbered, form, (JSONL, TSV))
    lines = LineNumbers()
    return Source(_parsed(numbered, _json_pair if form == JSONL else _tsv_pair, lines), _count_lines(path), lines)


def texts(path: Path | None, form: str | None) -> Source[str]:
    """Single texts: ``"a"`` or ``{"text": "a"}`` a line, or plain lines.

    Raises:
        BadInput: no such file; while iterating, a line that is no text.
    """
    stream = _open(path)
    numbered = _lines(stream)
    form, numbered = _detect(numbered, form, (JSONL, TEXT))
    lines = LineNumbers()
    parse = _json_text if form == JSONL else _plain_text
    return Source(_parsed(numbered, parse, lines, skip_blank=form == JSONL), _count_lines(path), lines)


def queries(path: Path | None, form: str | None) -> Source[Query]:
    """Queries with documents: ``{"query": "q", "documents": ["a", ...]}`` a line, or runs of ``q<TAB>a`` lines.

    Raises:
        BadInput: no such file; while iterating, a line that is none.
    """
    stream = _open(path)
    numbered = _lines(stream)
    form, numbered = _detect(numbered, form, (JSONL, TSV))
    lines = LineNumbers()
    if form == JSONL:
        return Source(_parsed(numbered, _json_query, lines), _count_lines(path), lines)
    return Source(_grouped(_parsed(numbered, _tsv_pair, LineNumbers())))


def _open(path: Path | None) -> BinaryIO:
    if path is None or str(path) == "-":
        if path is None and sys.stdin.isatty():
            raise BadInput("nothing to read: give texts as arguments, --input FILE, or pipe lines in (see --help)")
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def _count_lines(path: Path | None) -> int | None:
    """Lines of a file, for the progress bar; None for what can be read only once."""
    if path is None or not path.is_file() or not sys.stderr.isatty():
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Numbers and lines without their ends. Only newlines end lines: other separators are part of texts."""
    with nullcontext() if stream is sys.stdin.buffer else stream:
        for number, raw in enumerate(_read(stream), start=1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(f"line {number}: not valid UTF-8 at byte {error.start + 1}; convert the file") from None
            yield number, line.removesuffix("\n").removesuffix("\r")


def _read(stream: BinaryIO) -> Iterator[bytes]:
    try:
        yield from stream
    except OSError as error:
        raise BadInput(f"{stream.name}: {error.strerror}") from None


def _detect(
    numbered: Iterator[tuple[int, str]], form: str | None, known: tuple[str, str]
) -> tuple[str, Iterator[tuple[int, str]]]:
    """The format, by the first line that is not blank; the lines once more."""
    if form is not None:
        return form, numbered
    seen: list[tuple[int, str]] = []
    for number, line in numbered:
        seen.append((number, line))
        if line.strip():
            break
    numbered = itertools.chain(seen, numbered)
    line = seen[-1][1] if seen else ""
    return (JSONL if _is_json(line) else known[1]), numbered


def _is_json(line: str) -> bool:
    if line.lstrip()[:1] not in ("{", "[", '"'):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.lstrip()[:1] == "{"  # more likely a broken object than a text: its error helps more
    return True


def _parsed(
    numbered: Iterable[tuple[int, str]], parse: Callable[[str], T], lines: LineNumbers, *, skip_blank: bool = True
) -> Iterator[T]:
    index = 0
    for number, line in numbered:
        if skip_blank and not line.strip():
            continue
        try:
            record = parse(line)
        except ValueError as error:
            raise BadInput(f"line {number}: {error}") from None
        lines.note(index, number)
        index += 1
        yield record


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}; --format tells another format") from None
    except RecursionError:
        raise ValueError("not JSON for a text: nested too deeply; --format tells another format") from None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}: not valid Unicode, a lone surrogate at character {error.start + 1}") from None
    return value


def _document(value: object, name: str) -> str:
    """A text, or a record with one in it."""
    from pairwire.client import given

    if not isinstance(value, dict):
        return _text(value, name)
    try:
        text = given.text_of(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return _text(text, name)


def _json_pair(line: str) -> tuple[str, str]:
    from pairwire.client import given  # imported here: gRPC comes with it, which --help does without

    value = _json(line)
    if isinstance(value, list) and len(value) == 2:
        return _text(value[0], "first text"), _text(value[1], "second text")
    if isinstance(value, dict):
        first, second = given.pair_of(value)
        return _text(first, "first text"), _text(second, "second text")
    known = " or ".join(f'{{"{first}": ..., "{second}": ...}}' for first, second in given.PAIR_KEYS)
    raise ValueError(f'expected a pair of texts: ["...", "..."] or {known}')


def _tsv_pair(line: str) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2:
        raise ValueError(f"expected two texts with a tab between them, found {len(columns)} columns")
    return columns[0], columns[1]


def _json_text(line: str) -> str:
    value = _json(line)
    if isinstance(value, dict | str):
        return _document(value, "text")
    raise ValueError('expected a text: "..." or {"text": "..."}')


def _plain_text(line: str) -> str:
    return line


def _json_query(line: str) -> Query:
    value = _json(line)
    if not isinstance(value, dict) or "query" not in value or not isinstance(value.get("documents"), list):
        raise ValueError('expected {"query": "...", "documents": ["...", ...]}')
    if not value["documents"]:
        raise ValueError("documents: at least one is needed")
    documents = [_document(document, f"documents[{index}]") for index, document in enumerate(value["documents"])]
    return Query(_text(value["query"], "query"), documents)


def _grouped(found: Iterator[tuple[str, str]]) -> Iterator[Query]:
    for query, group in itertools.groupby(found, key=lambda pair: pair[0]):
        yield Query(query, [document for _, document in group])
