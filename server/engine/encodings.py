"""How the numbers of an `EmbedResult` may be handed on: what each encoding needs, and its array."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput, WrongModelKind
from ..runtime.base import Float32Array
from .outputs.vectors import Int8Array, UInt8Array, to_bits, to_int8
from .results import EmbedOptions, ModelInfo

_MOST_FLOAT16 = float(np.finfo(np.float16).max)

Encoded = Float32Array | npt.NDArray[np.float16] | Int8Array | UInt8Array


class Encoding(Enum):
    """The numbers of a vector; see pairwire.v1.Encoding."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    """A byte a number, by the fixed ranges of the package."""
    BINARY = "binary"
    """A bit a number."""


def check_encoding(encoding: Encoding, info: ModelInfo, options: EmbedOptions) -> None:
    """Whether this model's vectors can be had like that; to be asked before they are computed.

    Raises:
        WrongModelKind: int8, of a package without ranges.
        InvalidInput: int8, of vectors that have been stretched beyond the ranges.
    """
    if encoding is not Encoding.INT8:
        return
    if not info.manifest.int8_low:
        raise WrongModelKind(
            f"the package of model {info.name!r} has no int8 ranges; export it again with this version, "
            "or ask for float16 or binary"
        )
    if options.normalize:
        raise InvalidInput(
            "normalize",
            "the int8 ranges are those of the vectors as the model gives them; "
            "leave normalize out (cosine does not need it), or ask for another encoding",
        )


def encode_vectors(vectors: Float32Array, encoding: Encoding, info: ModelInfo) -> Encoded:
    """float32, float16 or int8 [rows, dimensions], or uint8 [rows, ceil(dimensions / 8)] of vectors of this model.

    ``vectors`` is float32 [rows, dimensions]; what `check_encoding` refuses must not come here.

    Raises:
        InvalidInput: float16, of a number that it does not have; the field is ``texts`` with the index.
    """
    if encoding is Encoding.INT8:
        return to_int8(vectors, info.manifest.int8_low, info.manifest.int8_high)
    if encoding is Encoding.BINARY:
        return to_bits(vectors)
    return _to_float16(vectors) if encoding is Encoding.FLOAT16 else vectors


def _to_float16(vectors: Float32Array) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):  # it is looked for below
        halves = vectors.astype(np.float16)
    finite = np.isfinite(halves)
    if not finite.all():
        row, column = divmod(int(np.argmin(finite)), halves.shape[1])
        raise InvalidInput(
            f"texts[{row}]",
            f"its vector has the number {vectors[row, column]:g}, and float16 ends at {_MOST_FLOAT16:g}; "
            "ask for float32, or for vectors of unit length (normalize)",
        )
    return halves
