"""Scores of earlier requests: what a graph gave for a row, exactly, by a digest of graph and row. Off by default."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from ...runtime.base import Float32Array
from ..cache import DIGEST_BYTES, ByteCache, CacheStatistics
from ..text.special_tokens import Row


class ScoreCache:
    """Raw outputs (logits or vectors, float32) of rows, for all models of an engine. Thread-safe.

    Whatever activation a request asks for is applied afterwards, as if the row had just been computed.
    """

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes`` of memory; 0 turns it off."""
        self._cache = ByteCache(limit_bytes)

    def __bool__(self) -> bool:
        """Whether it is on."""
        return bool(self._cache)

    def get(self, graph: str, rows: Sequence[Row]) -> list[Float32Array | None]:
        """Of each row, its outputs [outputs] from the graph with that sha256, or None."""
        person = _person(graph)
        known = self._cache.get([_key(person, row) for row in rows])
        return [None if values is None else np.frombuffer(values, np.float32) for values in known]

    def put(self, graph: str, rows: Sequence[Row], values: Float32Array) -> None:
        """Keeps outputs [rows, outputs]; what is not finite is left out."""
        person = _person(graph)
        finite: list[bool] = np.all(np.isfinite(values), axis=1).tolist()
        self._cache.put((_key(person, row), values[index].tobytes()) for index, row in enumerate(rows) if finite[index])

    def statistics(self) -> CacheStatistics:
        """A snapshot."""
        return self._cache.statistics()


def _person(graph: str) -> bytes:
    return blake2b(graph.encode(), digest_size=blake2b.PERSON_SIZE).digest()


def _key(person: bytes, row: Row) -> bytes:
    ids, split, left_out = row
    salt = (split << 32 | left_out).to_bytes(blake2b.SALT_SIZE, "little")
    return blake2b(ids, digest_size=DIGEST_BYTES, person=person, salt=salt).digest()
