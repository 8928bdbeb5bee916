"""What is done to vectors after the graph: cut (Matryoshka), made of unit length, quantised. numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInput
from ...runtime.base import Float32Array

Int8Array = npt.NDArray[np.int8]
UInt8Array = npt.NDArray[np.uint8]

INLINE_BYTES = 1 << 18
"""Vectors of up to this many bytes in float32 are worked on and encoded on the event loop. That takes 0.2 ms at most
(as float16); a hop to a thread and back takes 0.05 ms (one Zen 4 core)."""
_SMALLEST_LENGTH = np.float32(1e-12)
"""A vector of zeros stays one: torch.nn.functional.normalize's ``eps``."""


def check_dimensions(dimensions: int | None, most: int) -> None:
    """Refuses to cut vectors of ``most`` numbers to more, or to none. None is not looked at.

    Raises:
        InvalidInput: the sentence names the bound.
    """
    if dimensions is not None and not 1 <= dimensions <= most:
        raise InvalidInput("dimensions", f"{dimensions} is not between 1 and {most}, the numbers of a whole vector")


def shape_vectors(vectors: Float32Array, dimensions: int | None, normalize: bool | None) -> Float32Array:
    """The first ``dimensions`` numbers of each vector (None: all), then, where ``normalize``, of unit length.

    ``vectors`` is float32 [rows, all]; the result float32 [rows, dimensions], contiguous, and ``vectors`` itself where
    there is nothing to do. That is the order of sentence-transformers' ``encode(truncate_dim, normalize_embeddings)``;
    rows of zeros stay as they are, as in torch.nn.functional.normalize.

    Raises:
        InvalidInput: ``dimensions`` out of range.
    """
    check_dimensions(dimensions, vectors.shape[1])
    cut = vectors if dimensions is None else np.ascontiguousarray(vectors[:, :dimensions])
    if not normalize:
        return cut
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    unit: Float32Array = cut / np.maximum(lengths, _SMALLEST_LENGTH)
    return unit


def to_int8(vectors: Float32Array, low: Sequence[float], high: Sequence[float]) -> Int8Array:
    """int8 [rows, dimensions]: which of 256 equal steps from ``low`` to ``high`` of its dimension a number is in.

    The first step is -128. ``low`` and ``high`` have a number for each dimension at least; those of the dimensions that
    were cut off are not looked at. What lies outside the range becomes its end. In float32 and in the order of
    sentence-transformers' ``quantize_embeddings(precision="int8", ranges=...)``, and so equal to it bit by bit.
    """
    dimensions = vectors.shape[1]
    starts = np.array(low[:dimensions], np.float32)
    steps = (np.array(high[:dimensions], np.float32) - starts) / np.float32(255)
    steps[steps == 0] = 1  # a dimension that never changes
    with np.errstate(over="ignore"):  # a range of almost nothing: what lies far outside is at its end all the same
        places = np.clip(np.floor((vectors - starts) / steps), 0, 255)
    quantised: Int8Array = (places - 128).astype(np.int8)
    return quantised


def to_bits(vectors: Float32Array) -> UInt8Array:
    """uint8 [rows, ceil(dimensions / 8)]: a bit a number, 1 where it is above 0, the most significant first.

    Rows are filled up to whole bytes with zeros: sentence-transformers' ``quantize_embeddings(precision="ubinary")``.
    """
    return np.packbits(vectors > 0, axis=1)
