"""Writes a model package: all of it or nothing. Reading is `pairwire.server.package`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pairwire.server.package import MANIFEST_FILE, TOKENIZER_FILE, sha256_of
from pairwire.server.reasons import is_utf8, reason_of

from .errors import OutputInvalid


def check_target(target: Path, *, force: bool) -> None:
    """Says before any work whether a package can be written there.

    Raises:
        OutputInvalid: something is there that may not be replaced, or the place cannot be written.
    """
    if not is_utf8(target):
        raise OutputInvalid(f"{target}: not UTF-8, as ONNX needs of a path; choose another output")
    try:
        _check_existing(target, force=force)
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=f".{target.resolve().name}."):
            pass
    except (OSError, RuntimeError) as error:  # a RuntimeError for symbolic links that lead round in a circle
        raise OutputInvalid(f"{target}: cannot be written there ({reason_of(error)})") from error


def _check_existing(target: Path, *, force: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise OutputInvalid(f"{target}: exists and is not a directory; choose another output")
    if target.is_dir() and any(target.iterdir()):
        if not (target / MANIFEST_FILE).is_file():
            raise OutputInvalid(
                f"{target}: exists and is not a model package, so it is not replaced; choose another output"
            )
        if not force:
            raise OutputInvalid(f"{target}: exists; --force replaces it, or choose another output")


@contextlib.contextmanager
def checked_target(target: Path, *, force: bool) -> Iterator[None]:
    """As `check_target`; where the block fails, the directories that were made above the target disappear again."""
    made: list[Path] = []
    try:
        with contextlib.suppress(OSError, RuntimeError):  # check_target says it better
            made = [parent for parent in target.resolve().parents if not parent.exists()]
        check_target(target, force=force)
        yield
    except BaseException:
        for directory in made:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A temporary directory next to the target that becomes the target when the block ends well, and else disappears.

    The rename is atomic where the target does not exist; an existing one is moved aside first and removed last.
    """
    target = target.resolve()
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield stage
        stage.chmod(0o755)
        _swap(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_tokenizer(tokenizer_json: str, directory: Path) -> str:
    """Writes tokenizer.json and returns its sha256."""
    path = directory / TOKENIZER_FILE
    path.write_text(tokenizer_json, encoding="utf-8")
    return sha256_of(path)


def _swap(stage: Path, target: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    old = target.rename(aside / "old")
    try:
        stage.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
