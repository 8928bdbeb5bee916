"""Vectors -> messages: one little-endian block each, never a number at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pairwire.v1 import embedding_pb2

from ..engine.encodings import Encoding, encode_vectors
from ..engine.results import EmbedResult, ModelInfo, SparseResult
from .codec import encode_timing, encode_usage

_WIRE: Mapping[Encoding, tuple[embedding_pb2.Encoding.ValueType, str]] = {
    Encoding.FLOAT32: (embedding_pb2.ENCODING_FLOAT32, "<f4"),
    Encoding.FLOAT16: (embedding_pb2.ENCODING_FLOAT16, "<f2"),
    Encoding.INT8: (embedding_pb2.ENCODING_INT8, "i1"),
    Encoding.BINARY: (embedding_pb2.ENCODING_BINARY, "u1"),
}


def encode_embeddings(result: EmbedResult, encoding: Encoding, info: ModelInfo) -> embedding_pb2.EmbedResponse:
    """The answer to Embed, row-major; ``info`` is that of the model that answered."""
    number, dtype = _WIRE[encoding]
    rows, dimensions = result.embeddings.shape
    data = np.ascontiguousarray(encode_vectors(result.embeddings, encoding, info), dtype=dtype).tobytes()
    return embedding_pb2.EmbedResponse(
        embeddings=embedding_pb2.Embeddings(data=data, rows=rows, dimensions=dimensions, encoding=number),
        model=result.model,
        usage=encode_usage(result.usage),
        timing=encode_timing(result.timing),
    )


def encode_sparse(result: SparseResult) -> embedding_pb2.EmbedSparseResponse:
    """The answer to EmbedSparse, row after row."""
    return embedding_pb2.EmbedSparseResponse(
        embeddings=embedding_pb2.SparseEmbeddings(
            indices=result.indices.astype("<u4").tobytes(),
            values=result.values.astype("<f4").tobytes(),
            counts=result.counts.tolist(),
            dimensions=result.dimensions,
        ),
        model=result.model,
        usage=encode_usage(result.usage),
        timing=encode_timing(result.timing),
    )
