"""Tensors of KServe v2 <-> arrays and texts, for gRPC and for REST; pure functions.

Raw contents are row-major and little-endian; an element of BYTES has its length before it, four bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import RequestLimits
from ..errors import InvalidInput

BYTES = "BYTES"
DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Every datatype but BYTES."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a request or of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Array | list[bytes]
    """In row-major order: an array of any shape, or the elements of BYTES."""

    @classmethod
    def of(cls, name: str, values: Array) -> Tensor:
        """Of an array of numbers."""
        return cls(name, _NAMES[values.dtype.newbyteorder("<")], values.shape, values)

    def raw(self) -> bytes:
        """Its raw contents."""
        if isinstance(self.values, list):
            return b"".join(part for value in self.values for part in (_LENGTH.pack(len(value)), value))
        return np.ascontiguousarray(self.values, DTYPES[self.datatype]).tobytes()


def elements_of(name: str, datatype: str, shape: Sequence[int]) -> int:
    """How many elements a tensor has.

    Raises:
        InvalidInput: a negative dimension, or a datatype that there is none of.
    """
    if datatype != BYTES and datatype not in DTYPES:
        raise InvalidInput(name, f"datatype {datatype!r} is unknown; one of {BYTES}, {', '.join(DTYPES)}")
    if any(size < 0 for size in shape):
        raise InvalidInput(name, f"shape {list(shape)} has a negative dimension; give the sizes of this tensor")
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes, limits: RequestLimits) -> Tensor:
    """A tensor of its raw contents.

    Raises:
        InvalidInput: they do not fit its shape, or it has more texts than a request may have.
    """
    count = elements_of(name, datatype, shape)
    if datatype == BYTES:
        check_texts(name, count, limits)
        return Tensor(name, datatype, tuple(shape), _split(name, raw, count))
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidInput(
            name,
            f"{len(raw)} bytes of raw contents, but shape {list(shape)} of {datatype} takes {count * dtype.itemsize}",
        )
    return Tensor(name, datatype, tuple(shape), np.frombuffer(raw, dtype))


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any], limits: RequestLimits) -> Tensor:
    """A tensor of its elements, one by one.

    Raises:
        InvalidInput: as ``from_raw``; FP16 has no such form.
    """
    count = elements_of(name, datatype, shape)
    if datatype == BYTES:
        check_texts(name, count, limits)
    if len(values) != count:
        raise InvalidInput(name, f"{len(values)} elements, but shape {list(shape)} has {count}")
    if datatype == BYTES:
        return Tensor(name, datatype, tuple(shape), list(values))
    if datatype == "FP16":
        raise InvalidInput(name, "FP16 travels as raw contents only; send those, or FP32")
    try:
        array = np.array(values, DTYPES[datatype])
    except (OverflowError, ValueError, TypeError):
        raise InvalidInput(name, f"an element is no {datatype}") from None
    return Tensor(name, datatype, tuple(shape), array)


def check_texts(name: str, count: int, limits: RequestLimits) -> None:
    """Raises InvalidInput where a tensor has more texts than a request may have."""
    if count > limits.max_items:
        raise InvalidInput(name, f"{count} exceed --max-items {limits.max_items}; send several smaller requests")


def texts_of(tensor: Tensor) -> list[str]:
    """The texts of a tensor of one dimension, or of several of which but one are 1.

    Raises:
        InvalidInput: another datatype or shape, or what is no UTF-8.
    """
    if tensor.datatype != BYTES or not isinstance(tensor.values, list):
        raise InvalidInput(tensor.name, f"datatype {tensor.datatype}, expected {BYTES}: texts in UTF-8")
    if sum(size != 1 for size in tensor.shape) > 1:
        raise InvalidInput(tensor.name, f"shape {list(tensor.shape)}, expected [n]: one text an element")
    try:
        return [value.decode() for value in tensor.values]
    except UnicodeDecodeError:
        index = next(index for index, value in enumerate(tensor.values) if not _is_utf8(value))
        reason = "not valid UTF-8; encode the text as UTF-8, replacing what cannot be encoded"
        raise InvalidInput(f"{tensor.name}[{index}]", reason) from None


def matrix_of(tensor: Tensor) -> npt.NDArray[np.int64]:
    """Integers [rows, columns] of a tensor; one dimension is one row.

    Raises:
        InvalidInput: another datatype or shape.
    """
    if tensor.datatype not in ("INT64", "INT32") or isinstance(tensor.values, list):
        raise InvalidInput(tensor.name, f"datatype {tensor.datatype}, expected INT64 or INT32")
    if len(tensor.shape) not in (1, 2):
        raise InvalidInput(tensor.name, f"shape {list(tensor.shape)}, expected [rows, tokens]")
    shape = tensor.shape if len(tensor.shape) == 2 else (1, *tensor.shape)
    return tensor.values.reshape(shape).astype(np.int64, copy=False)


def _split(name: str, raw: bytes, count: int) -> list[bytes]:
    found: list[bytes] = []
    at, size, unpack = 0, len(raw), _LENGTH.unpack_from
    while at + 4 <= size and len(found) < count:
        begin = at + 4
        at = begin + unpack(raw, at)[0]
        found.append(raw[begin:at])
    if at != size or len(found) != count:
        raise InvalidInput(
            name,
            f"{size} bytes of raw contents are no {count} elements of BYTES: each is its length, four bytes "
            "little-endian, and that many bytes",
        )
    return found


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
