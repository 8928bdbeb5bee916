"""What each encoding needs and gives."""

from __future__ import annotations

import numpy as np
import pytest

from pairwire.server.engine import EmbedOptions, Encoding, ModelInfo
from pairwire.server.engine.encodings import check_encoding, encode_vectors
from pairwire.server.errors import InvalidInput, WrongModelKind
from tests.server.engine import toys

VECTORS = np.array([[-1, 0, 0.5], [3, 2, -0.25]], np.float32)


@pytest.fixture
def info() -> ModelInfo:
    manifest = toys.bi_encoder_manifest(dimensions=4)
    manifest.int8_low[:], manifest.int8_high[:] = [-1] * 4, [1] * 4
    return toys.toy_model(manifest=manifest).info(1)


@pytest.mark.parametrize(
    ("encoding", "dtype", "expected"),
    [
        (Encoding.FLOAT32, np.float32, [[-1, 0, 0.5], [3, 2, -0.25]]),
        (Encoding.FLOAT16, np.float16, [[-1, 0, 0.5], [3, 2, -0.25]]),
        (Encoding.INT8, np.int8, [[-128, -1, 63], [127, 127, -33]]),
        (Encoding.BINARY, np.uint8, [[0b00100000], [0b11000000]]),
    ],
)
def test_every_encoding_has_its_numbers(
    encoding: Encoding, dtype: type, expected: list[list[float]], info: ModelInfo
) -> None:
    check_encoding(encoding, info, EmbedOptions())
    found = encode_vectors(VECTORS, encoding, info)
    assert found.dtype == dtype
    assert found.tolist() == expected


@pytest.mark.parametrize("number", [65_536, -70_000])
def test_a_number_that_float16_does_not_have_is_told_and_never_becomes_infinite(number: float, info: ModelInfo) -> None:
    vectors = np.array([[1, 65_504, -65_504], [0, number, 1]], np.float32)
    assert np.isfinite(encode_vectors(vectors[:1], Encoding.FLOAT16, info)).all()
    with pytest.raises(InvalidInput, match=rf"^texts\[1\]: its vector has the number {number:g}, .* ask for float32"):
        encode_vectors(vectors, Encoding.FLOAT16, info)
    assert encode_vectors(vectors, Encoding.FLOAT32, info) is vectors


def test_int8_needs_the_ranges_of_the_package() -> None:
    info = toys.toy_model(manifest=toys.bi_encoder_manifest(dimensions=4)).info(1)
    with pytest.raises(WrongModelKind, match="has no int8 ranges; export it again"):
        check_encoding(Encoding.INT8, info, EmbedOptions())
    for encoding in set(Encoding) - {Encoding.INT8}:
        check_encoding(encoding, info, EmbedOptions(normalize=True))


def test_int8_ranges_are_not_those_of_normalised_vectors(info: ModelInfo) -> None:
    with pytest.raises(InvalidInput, match=r"^normalize: the int8 ranges are those of the vectors as"):
        check_encoding(Encoding.INT8, info, EmbedOptions(normalize=True))
    check_encoding(Encoding.INT8, info, EmbedOptions(normalize=False))
