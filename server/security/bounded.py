"""Files that an operator names, read up to a bound."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigInvalid


def read_bounded(option: str, path: Path, most_bytes: int) -> bytes:
    """The whole file; ``option`` names it in what is raised.

    Raises:
        ConfigInvalid: it cannot be read, or is longer than ``most_bytes``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise ConfigInvalid(f"{option}: {path} cannot be read ({error.strerror or error})") from None
    if len(content) > most_bytes:
        raise ConfigInvalid(f"{option}: {path} has more than {most_bytes} bytes")
    return content
