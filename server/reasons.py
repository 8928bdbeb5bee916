"""Other people's exceptions as one line for a person: the library's own first line, or what its type means."""

from __future__ import annotations

import errno
import os

MOST_CHARACTERS = 400
"""Of a reason: some libraries quote a whole file."""

_ANNOUNCED = 4
"""Lines of a reason whose first line ends with a colon."""
_FULL = "No space left on device"
_BARE = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError)
"""Their messages say little without their names: ``KeyError: 'type'``."""


def reason_of(error: BaseException) -> str:
    """The reason in one line. A file that the error names is in it."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "the memory has run out"
    if isinstance(error, OSError) and error.strerror:
        return f"{_shown(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror
    line = _first_line(str(error))
    if not line:
        return type(error).__name__
    return f"{type(error).__name__}: {line}" if isinstance(error, _BARE) else line


def is_of_the_machine(error: BaseException) -> bool:
    """Whether what runs Pairwire failed, not its input: no memory, a full disk, a device that does not answer."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno in full)
        or _FULL in str(error)  # of libraries in other languages
    )


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether a path is UTF-8. On Linux it is bytes, of which Python shows the others as lone surrogates."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _first_line(text: str) -> str:
    """With the next ones, where the first only announces them; at most ``MOST_CHARACTERS``."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = " ".join(lines[: _ANNOUNCED if lines and lines[0].endswith(":") else 1])
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."


def _shown(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, (str, bytes)) else str(filename)
