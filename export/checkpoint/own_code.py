"""Which code that came with a checkpoint has run? Read off the loaded objects, whose classes came from it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REMOTE = "transformers_modules."
"""Where transformers puts modules that it imports from a checkpoint: a package for each."""
_KNOWN = ("peft", "sentence_transformers", "tokenizers", "torch", "transformers")
"""Libraries that are installed whatever the checkpoint is."""


@dataclass(frozen=True, slots=True)
class OwnCode:
    """Python files that were imported for a checkpoint."""

    sha256: str
    """Of names and contents, as hexadecimal."""
    files: tuple[str, ...]
    """Names, sorted."""


def is_own(value: Any) -> bool:
    """Whether the class of an object, or one that it builds on, came with a checkpoint."""
    return any(base.__module__.startswith(REMOTE) for base in type(value).__mro__)


def ran(reference: Any) -> OwnCode | None:
    """The code behind a loaded model of sentence-transformers; None where all is that of the libraries."""
    files = sorted({(path.name, path.read_bytes()) for path in _files(reference)})
    if not files:
        return None
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return OwnCode(digest.hexdigest(), tuple(name for name, _ in files))


def _files(reference: Any) -> Iterator[Path]:
    names = {name for value in _objects(reference) for name in _foreign(value)}
    packages = tuple(f"{name.rpartition('.')[0]}." for name in names if name.startswith(REMOTE))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # What such a module imports lies beside it: a checkpoint's other files, and nothing else.
        if file and (name in names or (packages and name.startswith(packages))) and Path(file).stat().st_size:
            yield Path(file)


def _objects(reference: Any) -> Iterator[Any]:
    """Everything whose class a checkpoint may bring."""
    yield from reference.modules()
    for module in reference:
        yield from (getattr(module, name, None) for name in ("tokenizer", "processor", "config"))
    yield getattr(reference, "activation_fn", None)


def _foreign(value: Any) -> Iterator[str]:
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if library not in _KNOWN and library not in sys.stdlib_module_names:
            yield base.__module__
