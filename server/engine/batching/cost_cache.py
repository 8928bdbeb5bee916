"""Keeps measured costs on disk, so that a restart does not measure again. One small JSON file for each key.

A file is trusted only where everything fits: its format, its checksum, every field of its key, and its shapes. What
does not fit is measured again and written again, with a line in the log that says why. A directory that cannot be
written costs nothing but that line. Any file may be deleted at any time, and any number of processes may start at
once: files appear whole or not at all, and the last one stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .buckets import Bucket

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raise it when a file means something else, or when a change to the runtime makes old measurements wrong."""

_MOST_BYTES = 1 << 20
"""Far more than any file of ours: what is larger is not read into memory."""
_MOST_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CostKey:
    """Everything that measured costs depend on. Costs of one key are never used for another."""

    graph_sha256: str
    disabled_optimizers: tuple[str, ...]
    runtime_version: str
    provider: str
    device: str
    """The processor's name."""
    intra_op_threads: int
    workers: int
    usable_cpus: int
    batch_tokens: int
    lengths: tuple[int, ...]
    """Of the ladder."""
    warmup_s: float
    """Who allows more time for measuring wants a better table."""

    def fields(self) -> dict[str, object]:
        """As JSON has it: tuples are lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


class CostCache:
    """The measured costs of one key in one directory. Its methods never raise: a cache is a convenience."""

    def __init__(self, directory: Path, key: CostKey) -> None:
        self._key = key
        self.file = directory / f"{_digest({'format': FORMAT, 'key': key.fields()})[:32]}.json"
        """Named by a digest of the key, so that another key never gets in the way."""

    def read(self, expected: Collection[frozenset[Bucket]]) -> dict[Bucket, float] | None:
        """Shape -> seconds; None where there is nothing that can be trusted.

        ``expected``: the sets of shapes that a measurement may end with.
        """
        try:
            with self.file.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.distrust(f"it cannot be read ({error.strerror})")
            return None
        try:
            return self._checked(content, expected)
        except _Untrusted as error:
            self.distrust(str(error))
        except RecursionError:
            self.distrust("it is not a table of costs")
        return None

    def distrust(self, reason: str) -> None:
        """Tells the log why the file is not used."""
        logger.warning("measured costs are not taken from %s: %s; measuring again", self.file, reason)

    def write(self, measured: Mapping[Bucket, float]) -> None:
        """Keeps the costs for the next start, whole or not at all."""
        shapes = [[bucket.rows, bucket.length, seconds] for bucket, seconds in sorted(measured.items(), key=_by_shape)]
        content = {"format": FORMAT, "key": self._key.fields(), "shapes": shapes}
        text = json.dumps({**content, "sha256": _digest(content)})
        # The name is drawn: in containers on one volume every process has the same number.
        draft = self.file.with_suffix(f".{secrets.token_hex(8)}.tmp")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(self.file)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            logger.info(
                "measured costs are not kept for the next start: %s (%s); set cache_dir to a directory that can be "
                "written, or to none",
                self.file,
                error.strerror,
            )

    def _checked(self, content: bytes, expected: Collection[frozenset[Bucket]]) -> dict[Bucket, float]:
        if len(content) > _MOST_BYTES:
            raise _Untrusted(f"it is larger than {_MOST_BYTES} bytes")
        try:
            found = json.loads(content)
        except ValueError:
            raise _Untrusted("it is not JSON") from None
        if not isinstance(found, dict) or found.keys() != {"format", "key", "shapes", "sha256"}:
            raise _Untrusted("it is not a table of costs")
        if found["format"] != FORMAT:
            raise _Untrusted(f"its format is {found['format']!r}, this version reads {FORMAT}")
        checksum = found.pop("sha256")
        if checksum != _digest(found):
            raise _Untrusted("its checksum is wrong")
        self._check_key(found["key"])
        measured = _shapes(found["shapes"])
        if frozenset(measured) not in expected:
            raise _Untrusted("its shapes are not those that are measured")
        return measured

    def _check_key(self, found: object) -> None:
        wanted = self._key.fields()
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            raise _Untrusted("its key has other fields")
        for name, value in wanted.items():
            # As text, because 1 == 1.0 == True.
            if json.dumps(found[name]) != json.dumps(value):
                raise _Untrusted(f"it was measured with another {name}")


class _Untrusted(Exception):
    """Why a file is not used."""


def _shapes(found: object) -> dict[Bucket, float]:
    if not isinstance(found, list):
        raise _Untrusted("its shapes are not a list")
    measured: dict[Bucket, float] = {}
    for entry in found:
        match entry:
            case [int(rows), int(length), float(seconds)] if math.isfinite(seconds) and 0 < seconds <= _MOST_SECONDS:
                measured[Bucket(rows, length)] = seconds
            case _:
                raise _Untrusted(f"no batch costs {str(entry)[:80]} (rows, length, seconds)")
    if len(measured) < len(found):
        raise _Untrusted("it has a shape twice")
    return measured


def _by_shape(entry: tuple[Bucket, float]) -> tuple[int, int]:
    return entry[0].length, entry[0].rows


def _digest(content: object) -> str:
    """sha256 of the content as JSON, whatever its layout in the file."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
