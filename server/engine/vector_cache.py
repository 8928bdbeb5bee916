"""Vectors of documents of earlier requests, by a digest of the text: no text outlives its request."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from ..runtime.base import Float32Array
from .cache import DIGEST_BYTES, ByteCache, CacheStatistics
from .models.model import Model


class VectorCache:
    """Vectors of one bi-encoder, in float32: rounding them would move the similarities. Thread-safe."""

    def __init__(self, limit_bytes: int, model: Model) -> None:
        """``limit_bytes`` of memory; 0 turns it off.

        The model's whole manifest is in the keys (the graph's and the tokenizer's sha256, limits, dimensions), and
        which variant runs.
        """
        self._cache = ByteCache(limit_bytes)
        self._model = blake2b(model.manifest.SerializeToString(deterministic=True), digest_size=blake2b.PERSON_SIZE)
        self._model.update(f"\0{model.variant}\0".encode())

    def __bool__(self) -> bool:
        """Whether it is on."""
        return bool(self._cache)

    def keys_of(self, prompt: str, texts: Sequence[str]) -> list[bytes]:
        """What finds the vector that the model gives for each text with that prompt before it."""
        maker = self._model.copy()
        maker.update(prompt.encode())
        person = maker.digest()
        return [blake2b(text.encode(), digest_size=DIGEST_BYTES, person=person).digest() for text in texts]

    def get(self, keys: Sequence[bytes]) -> list[Float32Array | None]:
        """For each key its vector [dimensions], read-only, or None."""
        return [None if found is None else np.frombuffer(found, np.float32) for found in self._cache.get(keys)]

    def put(self, keys: Sequence[bytes], vectors: Float32Array) -> None:
        """Keeps vectors [keys, dimensions]; never one with a number that is not finite, which a fault left there."""
        self._cache.put((key, row.tobytes()) for key, row in zip(keys, vectors, strict=True) if np.isfinite(row).all())

    def statistics(self) -> CacheStatistics:
        """A snapshot."""
        return self._cache.statistics()
