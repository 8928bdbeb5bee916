"""Vectors become blocks of bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pairwire.server.engine import EmbedResult, Encoding, ModelInfo, SparseResult, Timing, Usage
from pairwire.server.rpc.vectors import encode_embeddings, encode_sparse
from pairwire.v1 import embedding_pb2
from tests.server.engine import toys

USAGE = Usage(tokens=12, padded_tokens=4, truncated_inputs=(0, 2))
TIMING = Timing(queue_s=0.0015, tokenize_s=0.00000199, compute_s=2.0)


@pytest.fixture
def info() -> ModelInfo:
    manifest = toys.bi_encoder_manifest(dimensions=2)
    manifest.int8_low[:], manifest.int8_high[:] = [-4, -4], [4, 4]
    return toys.toy_model(manifest=manifest).info(1)


@pytest.mark.parametrize(
    ("encoding", "number", "form", "expected"),
    [
        (Encoding.FLOAT32, embedding_pb2.ENCODING_FLOAT32, "<4f", (1, -2, 0.5, 6)),
        (Encoding.FLOAT16, embedding_pb2.ENCODING_FLOAT16, "<4e", (1, -2, 0.5, 6)),
        (Encoding.INT8, embedding_pb2.ENCODING_INT8, "4b", (31, -65, 15, 127)),
        (Encoding.BINARY, embedding_pb2.ENCODING_BINARY, "2B", (0b10000000, 0b11000000)),
    ],
)
def test_vectors_travel_as_little_endian_rows(
    encoding: Encoding,
    number: embedding_pb2.Encoding.ValueType,
    form: str,
    expected: tuple[float, ...],
    info: ModelInfo,
) -> None:
    vectors = np.array([[1, -2], [0.5, 6]], np.float32)
    raw = encode_embeddings(EmbedResult(vectors, "m", USAGE, TIMING), encoding, info)
    answer = embedding_pb2.EmbedResponse.FromString(raw)
    assert struct.unpack(form, answer.embeddings.data) == expected
    assert (answer.embeddings.rows, answer.embeddings.dimensions, answer.embeddings.encoding) == (2, 2, number)
    assert (answer.model, answer.usage.tokens, answer.timing.queue_us) == ("m", 12, 1500)


def test_sparse_vectors_travel_as_indices_and_values() -> None:
    result = SparseResult(
        indices=np.array([7, 300, 2], np.uint32),
        values=np.array([0.5, 2, 1], np.float32),
        counts=np.array([2, 0, 1], np.uint32),
        dimensions=301,
        model="m",
        usage=USAGE,
        timing=TIMING,
    )
    answer = embedding_pb2.EmbedSparseResponse.FromString(encode_sparse(result))
    assert struct.unpack("<3I", answer.embeddings.indices) == (7, 300, 2)
    assert struct.unpack("<3f", answer.embeddings.values) == (0.5, 2, 1)
    assert (list(answer.embeddings.counts), answer.embeddings.dimensions) == ([2, 0, 1], 301)
    assert (answer.model, answer.usage.tokens, answer.timing.queue_us) == ("m", 12, 1500)
