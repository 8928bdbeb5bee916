"""Files, directories and globs -> input files, in an order that does not change, and what tells a changed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from .errors import InputUnusable

PARQUET, ARROW, JSONL, CSV, TSV = "parquet", "arrow", "jsonl", "csv", "tsv"
SUFFIXES = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".arrow": ARROW,
    ".arrows": ARROW,
    ".feather": ARROW,
    ".ipc": ARROW,
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".csv": CSV,
    ".tsv": TSV,
}
"""Formats by the end of a name."""
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
"""Of JSON lines and CSV."""
_MAGIC = ("*", "?", "[")
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call what changes with a file's content, the best first."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file, as it was when it was found."""

    url: str
    """As fsspec opens it."""
    format: str
    size: int
    """Bytes."""
    version: str
    """Changes when the file does: an ETag, or the time of the last change."""

    def described(self) -> dict[str, object]:
        """For the manifest."""
        return {"url": self.url, "size": self.size, "version": self.version}

    def check_unchanged(self) -> None:
        """Whether it still is what it was.

        Raises:
            InputUnusable: it is not.
        """
        fs, path = _resolve(self.url)
        found = _file(fs, path, self.format)
        if found != self:
            raise InputUnusable(
                f"{self.url}: changed while it was read ({self.size} bytes before, {found.size} now); put it back, "
                "or start again in an empty directory"
            )


def find_inputs(given: Sequence[str], form: str | None = None) -> tuple[InputFile, ...]:
    """The files that are meant: of each argument in its turn, those of a directory or glob sorted by name.

    Directories are walked; files that begin with a dot or underscore, and those of unknown formats, are left out there.
    ``form`` is the format of all, whatever their names.

    Raises:
        InputUnusable: nothing is there, a format is unknown, a file system has no driver.
    """
    found: dict[str, InputFile] = {}
    for each in given:
        fs, path = _resolve(each)
        try:
            for name in _paths(fs, path, each, form):
                file = _file(fs, name, form)
                found.setdefault(file.url, file)
        except OSError as error:
            raise InputUnusable(f"{each}: {error.strerror or error}") from error
    return tuple(found.values())


def format_of(path: str) -> str | None:
    """By the end of the name; None where it says nothing."""
    name = PurePosixPath(path.lower())
    inner = SUFFIXES.get(PurePosixPath(name.stem).suffix) if name.suffix in COMPRESSED else None
    return inner if inner in (JSONL, CSV, TSV) else SUFFIXES.get(name.suffix)


def _resolve(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:  # of a scheme whose driver is not installed, or that nobody knows
        raise InputUnusable(f"{url}: {error}") from error
    return found


def _paths(fs: Any, path: str, given: str, form: str | None) -> list[str]:
    if fs.isfile(path):
        return [path]
    if fs.isdir(path):
        walked = [name for name in fs.find(path) if _is_wanted(name[len(path.rstrip("/")) :], form)]
        if not walked:
            known = ", ".join(sorted(SUFFIXES))
            raise InputUnusable(f"{given}: no file of a known format in this directory; known are {known}")
        return sorted(walked)
    if any(sign in path for sign in _MAGIC):
        matched = sorted(name for name in fs.glob(path) if fs.isfile(name))
        if not matched:
            raise InputUnusable(f"{given}: no file matches")
        return matched
    raise InputUnusable(f"{given}: no such file or directory")


def _is_wanted(relative: str, form: str | None) -> bool:
    hidden = any(part.startswith((".", "_")) for part in PurePosixPath(relative.lstrip("/")).parts)
    return not hidden and (form is not None or format_of(relative) is not None)


def _file(fs: Any, path: str, form: str | None) -> InputFile:
    kind = form or format_of(path)
    if kind is None:
        known = ", ".join(sorted(SUFFIXES))
        raise InputUnusable(f"{path}: the name does not say its format; known are {known}; or give --input-format")
    try:
        info = fs.info(path)
    except OSError as error:
        raise InputUnusable(f"{path}: {error.strerror or error}") from error
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    local = "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
    return InputFile(path if local else fs.unstrip_protocol(path), kind, int(info["size"] or 0), version)
