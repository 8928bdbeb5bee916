"""Are the weights whole? Looks at sizes and headers alone, so that a damaged file is named before it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointUnsupported

_POINTER = b"version https://git-lfs"
_POINTER_SIZE = 1024
"""A git-lfs pointer is smaller."""
_LENGTH = 8
"""Bytes before a safetensors header; they say how long it is."""


def check(directory: Path) -> None:
    """Checks every file of a checkpoint or adapter, and those in the folders of its modules.

    Raises:
        CheckpointUnsupported: a git-lfs pointer in place of a file, or weights that end too early.
    """
    for file in [*directory.glob("*"), *directory.glob("*/*")]:
        if not file.is_file():
            continue
        if file.stat().st_size < _POINTER_SIZE and file.read_bytes().startswith(_POINTER):
            raise CheckpointUnsupported(
                f"{_named(file, directory)} is a git-lfs pointer in place of the file; run `git lfs pull` in the"
                " checkpoint's repository"
            )
        if file.suffix == ".safetensors":
            shapes(file)


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file, from its header.

    Raises:
        CheckpointUnsupported: no such header, or fewer bytes than it names.
    """
    size = file.stat().st_size
    try:
        header, begin = _header(file)
        end = begin + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        found = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointUnsupported(
            f"{file.parent.name}/{file.name}: not a whole safetensors file ({size} bytes); download it again"
        ) from error
    if end > size:
        raise CheckpointUnsupported(
            f"{file.parent.name}/{file.name}: ends after {size} bytes of {end}; download it again"
        )
    return found


def _header(file: Path) -> tuple[dict[str, Any], int]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if not 0 < length <= file.stat().st_size:
            raise ValueError("no header")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, _LENGTH + length


def _named(file: Path, directory: Path) -> str:
    return f"{directory.name}/{file.relative_to(directory)}"
