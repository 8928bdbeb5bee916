"""Vectors -> answers: one little-endian block each, never a number at a time, and none that is too large to arrive."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pairwire.v1 import embedding_pb2

from ..config import RequestLimits
from ..engine.encodings import Encoding, encode_vectors
from ..engine.results import EmbedResult, ModelInfo, SparseResult
from ..errors import InvalidInput
from .codec import encode_timing, encode_usage
from .fields import with_block

_WIRE: Mapping[Encoding, tuple[embedding_pb2.Encoding.ValueType, str]] = {
    Encoding.FLOAT32: (embedding_pb2.ENCODING_FLOAT32, "<f4"),
    Encoding.FLOAT16: (embedding_pb2.ENCODING_FLOAT16, "<f2"),
    Encoding.INT8: (embedding_pb2.ENCODING_INT8, "i1"),
    Encoding.BINARY: (embedding_pb2.ENCODING_BINARY, "u1"),
}
_WEIGHT_BYTES = 8
"""Index and value."""
_REST_BYTES = 4096
"""At most, of an answer besides its rows: names, usage and timing."""
_ROW_BYTES = 10
"""At most, of a row besides its numbers: how many they are, and its place among those that were cut."""

_EMBEDDINGS = embedding_pb2.EmbedResponse.DESCRIPTOR.fields_by_name["embeddings"].number
_DATA = embedding_pb2.Embeddings.DESCRIPTOR.fields_by_name["data"].number
_SPARSE = embedding_pb2.EmbedSparseResponse.DESCRIPTOR.fields_by_name["embeddings"].number
_INDICES = embedding_pb2.SparseEmbeddings.DESCRIPTOR.fields_by_name["indices"].number
_VALUES = embedding_pb2.SparseEmbeddings.DESCRIPTOR.fields_by_name["values"].number


def check_vectors(rows: int, dimensions: int, encoding: Encoding, limits: RequestLimits) -> None:
    """Refuses vectors that would not fit into an answer; to be asked before they are computed.

    Raises:
        InvalidInput: the sentence says how many texts a request may have.
    """
    check_rows(rows, dimensions, _row_bytes(dimensions, encoding), encoding.value, limits)


def check_rows(rows: int, dimensions: int, row_bytes: int, encoding: str, limits: RequestLimits) -> None:
    """As ``check_vectors``, of an encoding that takes at most ``row_bytes`` for a vector."""
    row = row_bytes + _ROW_BYTES
    size, room = rows * row, limits.max_answer_bytes - _REST_BYTES
    if size > room:
        raise InvalidInput(
            "texts",
            f"{rows} vectors of {dimensions} numbers ({encoding}) take {size} bytes, more than an answer may have"
            f" (--max-answer-bytes {limits.max_answer_bytes});"
            f" {_send_fewer(room // row)}ask for fewer dimensions or another encoding",
        )


def check_weights(result: SparseResult, limits: RequestLimits, weight_bytes: int = _WEIGHT_BYTES) -> None:
    """Refuses sparse vectors that do not fit into an answer, where a weight takes so many bytes.

    Raises:
        InvalidInput: the sentence says how many texts like these fit.
    """
    rows, weights = len(result.counts), len(result.indices)
    size, room = weights * weight_bytes + rows * _ROW_BYTES, limits.max_answer_bytes - _REST_BYTES
    if size > room:
        raise InvalidInput(
            "texts",
            f"{rows} texts have {weights} weights, which take {size} bytes, more than an answer may have"
            f" (--max-answer-bytes {limits.max_answer_bytes});"
            f" {_send_fewer(rows * room // size)}keep the largest weights only (max_active_dims)",
        )


def encode_embeddings(result: EmbedResult, encoding: Encoding, info: ModelInfo) -> bytes:
    """The EmbedResponse, row-major; ``info`` is that of the model that answered.

    Raises:
        InvalidInput: as ``encode_vectors``.
    """
    number, dtype = _WIRE[encoding]
    rows, dimensions = result.embeddings.shape
    data = np.ascontiguousarray(encode_vectors(result.embeddings, encoding, info), dtype=dtype).tobytes()
    block = embedding_pb2.Embeddings(rows=rows, dimensions=dimensions, encoding=number)
    answer = embedding_pb2.EmbedResponse(
        model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    return b"".join(with_block(answer, _EMBEDDINGS, with_block(block, _DATA, [data])))


def encode_sparse(result: SparseResult) -> bytes:
    """The EmbedSparseResponse, row after row."""
    indices, values = result.indices.astype("<u4", copy=False), result.values.astype("<f4", copy=False)
    rest = embedding_pb2.SparseEmbeddings(counts=result.counts.tolist(), dimensions=result.dimensions)
    block = with_block(embedding_pb2.SparseEmbeddings(), _INDICES, [indices.tobytes()])
    block += with_block(rest, _VALUES, [values.tobytes()])
    answer = embedding_pb2.EmbedSparseResponse(
        model=result.model, usage=encode_usage(result.usage), timing=encode_timing(result.timing)
    )
    return b"".join(with_block(answer, _SPARSE, block))


def _row_bytes(dimensions: int, encoding: Encoding) -> int:
    if encoding is Encoding.BINARY:
        return -(-dimensions // 8)
    return dimensions * np.dtype(_WIRE[encoding][1]).itemsize


def _send_fewer(rows: int) -> str:
    return f"send at most {rows} such texts in one request, or " if rows else ""
