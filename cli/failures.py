"""Names the line of the input in an error that names a record: ``pairs[4].second`` of a file is somebody's line 6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pairwire.client.errors import InvalidInput
from pairwire.server import errors as server_errors

from .exits import BadInput
from .records import LineNumbers


@contextmanager
def naming_lines(lines: LineNumbers) -> Iterator[None]:
    """Turns what was wrong with a record into a `BadInput` with its line.

    Raises:
        BadInput: instead of the client's or the engine's InvalidInput, where a record is named.
    """
    try:
        yield
    except (InvalidInput, server_errors.InvalidInput) as error:
        found = re.match(r"(?:pairs|texts)\[(\d+)\]", error.field)
        line = lines.of(int(found[1])) if found else None
        raise BadInput(f"line {line}: {error}" if line else str(error)) from error
