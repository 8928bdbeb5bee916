"""Whatever bytes come in, the reader gives a message or a value that says what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.rpc.wire import Unreadable, reader
from pairwire.v1 import embedding_pb2, scoring_pb2

read_score = reader(scoring_pb2.ScoreRequest, 1000)
read_embed = reader(embedding_pb2.EmbedRequest, 1000)


def unreadable(value: object) -> str:
    assert isinstance(value, Unreadable)
    return value.error.message


def test_a_good_request_is_read() -> None:
    request = embedding_pb2.EmbedRequest(model="m", texts=["a", "\0", "猫"])
    assert read_embed(request.SerializeToString()) == request


def test_a_message_of_the_limit_is_read_and_one_byte_more_is_not() -> None:
    def of_size(size: int) -> bytes:
        return embedding_pb2.EmbedRequest(texts=["x" * (size - 3)]).SerializeToString()

    assert len(of_size(1000)) == 1000
    assert isinstance(read_embed(of_size(1000)), embedding_pb2.EmbedRequest)
    assert unreadable(read_embed(of_size(1001))).startswith("request: 1001 bytes exceed --max-message-bytes 1000")


def test_the_path_to_broken_text_is_told() -> None:
    pair = scoring_pb2.TextPair(first="a", second="####")
    request = scoring_pb2.ScoreRequest(model="m", text_pairs=scoring_pb2.TextPairs(pairs=[pair, pair, pair]))
    raw = request.SerializeToString()
    at = raw.rindex(b"####")
    broken = raw[:at] + b"\xf0\x9f\x92#" + raw[at + 4 :]
    assert unreadable(read_score(broken)).startswith("text_pairs.pairs[2].second: not valid UTF-8")


def test_unknown_fields_of_newer_clients_are_passed_over() -> None:
    raw = embedding_pb2.EmbedRequest(texts=["a"]).SerializeToString() + b"\xfa\x3f\x01\xff"
    assert isinstance(read_embed(raw), embedding_pb2.EmbedRequest)


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05abc", b"\x12\x05\x08\x01", b"\xff" * 20], ids=bytes.hex)
def test_broken_bytes_are_told_from_broken_text(raw: bytes) -> None:
    assert "the bytes are not a pairwire.v1.ScoreRequest" in unreadable(read_score(raw))


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    assert isinstance(read_score(raw), scoring_pb2.ScoreRequest | Unreadable)
