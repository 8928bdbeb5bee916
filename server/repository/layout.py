"""Which models and versions a directory has: ``MODEL/VERSION/manifest.json``, or ``MODEL/manifest.json``.

A version is a number from 1; of a model without version directories the one package is version 1. Names that begin with
a dot are left out, so that a package can be copied under such a name and moved into place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigInvalid
from ..package import MANIFEST_FILE
from ..reasons import is_utf8


@dataclass(frozen=True, slots=True)
class Version:
    """A package in the repository; nobody has looked into it yet."""

    model: str
    """Its directory's name, which it is served under, whatever its manifest calls it."""
    version: str
    """Decimal, without zeros before it."""
    directory: Path


def scan(root: Path) -> Mapping[str, Sequence[Version]]:
    """The versions of every model, the newest first; a directory without any is left out.

    Raises:
        ConfigInvalid: the directory cannot be read.
    """
    found = {}
    try:
        for directory in sorted(root.iterdir()):
            if directory.is_dir() and not directory.name.startswith(".") and is_utf8(directory):
                versions = _versions(directory)
                if versions:
                    found[directory.name] = versions
    except OSError as error:
        raise ConfigInvalid(
            f"repository: {root} cannot be read ({error.strerror}); give a directory of models"
        ) from error
    return found


def _versions(directory: Path) -> list[Version]:
    numbered = [
        Version(directory.name, child.name, child)
        for child in directory.iterdir()
        if _is_version(child.name) and child.is_dir()
    ]
    if numbered:
        return sorted(numbered, key=lambda each: int(each.version), reverse=True)
    if (directory / MANIFEST_FILE).is_file():
        return [Version(directory.name, "1", directory)]
    return []


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
