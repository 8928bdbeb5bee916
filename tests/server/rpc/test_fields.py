"""protobuf's wire format, divided and joined, beside protobuf itself."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.rpc.fields import fields_of, varint, with_block
from pairwire.v1 import embedding_pb2, usage_pb2


def numbers(raw: bytes) -> list[tuple[int, int]]:
    return [(field.number, field.wire_type) for field in fields_of(raw, 0, len(raw))]


def test_the_fields_of_a_message_follow_each_other_without_a_gap() -> None:
    message = embedding_pb2.EmbedRequest(model="m", texts=["a", "é" * 200], normalize=True, dimensions=2**32 - 1)
    message.token_ids.add(ids=range(500))
    raw = message.SerializeToString() + b"\xf9\x3f12345678" + b"\xfd\x3f1234"  # fields of later times, 8 and 4 bytes
    assert numbers(raw) == [(1, 2), (2, 2), (2, 2), (9, 2), (10, 0), (11, 0), (1023, 1), (1023, 5)]
    fields = list(fields_of(raw, 0, len(raw)))
    assert [field.begin for field in fields] == [0, *(field.end for field in fields[:-1])]
    assert fields[-1].end == len(raw)
    assert raw[fields[2].body : fields[2].end].decode() == "é" * 200
    one = fields[3]
    assert [each.number for each in fields_of(raw, one.body, one.end)] == [1]


@pytest.mark.parametrize(
    "raw",
    [b"\x0a", b"\x0a\x05abc", b"\x0a\x80", b"\xff" * 12, b"\x0b\x0c", b"\x02\x00", b"\x09123", b"\x08", b"\x08\x80"],
    ids=bytes.hex,
)
def test_what_is_no_message_is_told(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        list(fields_of(raw, 0, len(raw)))


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_written_as_protobuf_writes_them(value: int) -> None:
    assert b"\x08" + varint(value) == usage_pb2.Usage(tokens=value).SerializeToString() or not value
    assert varint(0) == b"\0"


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.text(max_size=5))
def test_a_joined_message_is_the_one_that_protobuf_makes(data: bytes, rows: int, model: str) -> None:
    block = with_block(embedding_pb2.Embeddings(rows=rows), 1, [data[:7], data[7:]])
    raw = b"".join(with_block(embedding_pb2.EmbedResponse(model=model), 1, block))
    expected = embedding_pb2.EmbedResponse(model=model, embeddings=embedding_pb2.Embeddings(data=data, rows=rows))
    assert embedding_pb2.EmbedResponse.FromString(raw) == expected
    if data:
        assert raw == expected.SerializeToString()
