"""How vectors are compared: the similarity functions of sentence-transformers, by the names that checkpoints use.

Each takes a query float32 [dimensions] and documents float32 [documents, dimensions] and gives float32 [documents],
more for what is nearer: distances are negative. A document's number depends on no other document: rows are added up one
by one, where a matrix product would round by the shape of the whole.

Source: sentence_transformers.util.similarity, 5.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...runtime.base import Float32Array

Similarity = Callable[[Float32Array, Float32Array], Float32Array]

_LEAST_LENGTH = np.float32(1e-12)
"""What torch.nn.functional.normalize divides by at least."""


def dot(query: Float32Array, documents: Float32Array) -> Float32Array:
    """The dot product."""
    return _sums(documents * query)


def cosine(query: Float32Array, documents: Float32Array) -> Float32Array:
    """The cosine of the angle; 0 for a vector of zeros."""
    return dot(_unit(query[np.newaxis])[0], _unit(documents))


def euclidean(query: Float32Array, documents: Float32Array) -> Float32Array:
    """The negative Euclidean distance."""
    return -np.sqrt(_sums((documents - query) ** 2))


def manhattan(query: Float32Array, documents: Float32Array) -> Float32Array:
    """The negative sum of absolute differences."""
    return -_sums(np.abs(documents - query))


SIMILARITIES: Mapping[str, Similarity] = {
    "": cosine,  # a checkpoint that says nothing: sentence-transformers' default
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
"""By ModelManifest.similarity."""


def _sums(rows: Float32Array) -> Float32Array:
    sums: Float32Array = np.add.reduce(rows, axis=1, dtype=np.float32)
    return sums


def _unit(rows: Float32Array) -> Float32Array:
    lengths = np.sqrt(_sums(rows**2))
    return np.divide(rows, np.maximum(lengths, _LEAST_LENGTH)[:, np.newaxis], dtype=np.float32)
