"""Whatever bytes come in, the reader gives a message or a value that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pairwire.server.config import RequestLimits
from pairwire.server.errors import InvalidInput
from pairwire.server.rpc import wire
from pairwire.server.rpc.fields import varint
from pairwire.server.rpc.wire import Unread, Unreadable, read_in_pieces, reader
from pairwire.v1 import embedding_pb2, scoring_pb2

LIMITS = RequestLimits(max_message_bytes=1024)
read_score = reader(scoring_pb2.ScoreRequest, LIMITS)
read_embed = reader(embedding_pb2.EmbedRequest, LIMITS)
read_large = reader(scoring_pb2.RerankRequest, RequestLimits())
PAIR = scoring_pb2.TextPair(first="a" * 900, second="é" * 400)


def unreadable(value: object) -> str:
    assert isinstance(value, Unreadable)
    return value.error.message


def test_a_good_request_is_read() -> None:
    request = embedding_pb2.EmbedRequest(model="m", texts=["a", "\0", "猫"])
    assert read_embed(request.SerializeToString()) == request


def test_a_message_of_the_limit_is_read_and_one_byte_more_is_not() -> None:
    def of_size(size: int) -> bytes:
        return embedding_pb2.EmbedRequest(texts=["x" * (size - 3)]).SerializeToString()

    assert len(of_size(1024)) == 1024
    assert isinstance(read_embed(of_size(1024)), embedding_pb2.EmbedRequest)
    assert unreadable(read_embed(of_size(1025))).startswith("request: 1025 bytes exceed --max-message-bytes 1024")


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
    assert "the bytes are not a pairwire.v1.ScoreRequest" in unreadable(
        read_in_pieces(scoring_pb2.ScoreRequest, raw, LIMITS)
    )


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    assert isinstance(read_score(raw), scoring_pb2.ScoreRequest | Unreadable)
    assert isinstance(read_in_pieces(scoring_pb2.ScoreRequest, raw, LIMITS), scoring_pb2.ScoreRequest | Unreadable)


async def test_a_large_request_is_read_later_and_its_model_is_known_then() -> None:
    request = scoring_pb2.RerankRequest(model="m", query="q", documents=["d" * 1000] * 300)
    small = scoring_pb2.RerankRequest(model="m", query="q", documents=["d" * 1000] * 200)
    assert read_large(small.SerializeToString()) == small
    found = read_large(request.SerializeToString())
    assert isinstance(found, Unread)
    assert found.model == ""
    assert await found.read() == request
    assert (found.model, found.raw) == ("m", b"")


async def test_what_cannot_be_read_later_is_told_then() -> None:
    raw = scoring_pb2.RerankRequest(query="q", documents=["d" * 1000] * 300).SerializeToString()
    for broken, words in (
        (raw[:-1], "^request: the bytes are not"),
        (raw + b"\x1a\x01\xff", r"^documents\[300\]: not"),
    ):
        found = read_large(broken)
        assert isinstance(found, Unread)
        with pytest.raises(InvalidInput, match=words):
            await found.read()


def large_messages() -> list[Message]:
    ids = [scoring_pb2.TokenIds(ids=np.random.default_rng(0).integers(0, 1 << 20, size)) for size in (0, 9, 70_000)]
    pairs = [scoring_pb2.TokenIdPair(first=first, second=second) for first in ids for second in ids]
    return [
        scoring_pb2.ScoreRequest(model="m", text_pairs={"pairs": [PAIR] * 900}, max_length=9, prompt="p"),
        scoring_pb2.ScoreRequest(model="m", token_id_pairs={"pairs": pairs}, priority=scoring_pb2.PRIORITY_LOW),
        scoring_pb2.ScoreRequest(query_documents={"query": "q", "documents": ["é" * 500, ""] * 500}, activation=1),
        scoring_pb2.RerankRequest(query="q" * 300_000, documents=["d" * 300_000] * 3, first_stage={"keep": 3}),
        embedding_pb2.EmbedRequest(model="m", token_ids=ids, normalize=False, prompt_name=""),
        embedding_pb2.EmbedSparseRequest(texts=["", "a" * 900_000]),
    ]


@pytest.mark.parametrize("message", large_messages(), ids=lambda message: type(message).__name__)
def test_pieces_make_the_same_message(message: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = message.SerializeToString() + b"\xfa\x3f\x01\xff"  # and a field of later times
    expected = type(message).FromString(raw)
    for size in (wire.PIECE_BYTES, 50):
        monkeypatch.setattr(wire, "PIECE_BYTES", size)
        assert read_in_pieces(type(message), raw, RequestLimits()) == expected


def test_what_comes_twice_is_merged_as_protobuf_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PIECE_BYTES", 50)
    pairs = scoring_pb2.ScoreRequest(model="a", text_pairs={"pairs": [PAIR] * 3}).SerializeToString()
    documents = scoring_pb2.ScoreRequest(model="b", query_documents={"query": "q" * 90, "documents": ["d"] * 90})
    for raw in (pairs + pairs, pairs + documents.SerializeToString(), documents.SerializeToString() + pairs):
        found = read_in_pieces(scoring_pb2.ScoreRequest, raw, RequestLimits())
        assert found == scoring_pb2.ScoreRequest.FromString(raw)


def nested(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


@pytest.mark.parametrize(
    ("message_type", "raw", "words"),
    [
        (embedding_pb2.EmbedRequest, b"\x12\x00" * 2049, "texts: more than --max-items 2048"),
        (embedding_pb2.EmbedRequest, b"\x12\x00" * 9999 + b"\x12\x01\xff", "texts: more than --max-items 2048"),
        (embedding_pb2.EmbedSparseRequest, b"\x2a\x00" * 2049, "token_ids: more than --max-items 2048"),
        (scoring_pb2.ScoreRequest, nested(2, b"\x0a\x00" * 150_000), "text_pairs.pairs: more than --max-items 2048"),
        (scoring_pb2.RerankRequest, b"\xa0\x06\x01" * 1001, "request: more than 1000 fields besides its texts"),
        (scoring_pb2.RerankRequest, b"\x28\x01" * 1001, "request: more than 1000 fields besides its texts"),
        (scoring_pb2.RerankRequest, nested(1, b"m" * 1_048_577), "model: 1048577 bytes exceed --max-text-bytes"),
        (embedding_pb2.EmbedRequest, nested(9, b"\x0a\x00" * 2_000_000), "token_ids[0]: 4000000 bytes of text or"),
    ],
    ids=str,
)
def test_what_would_take_long_to_read_is_refused_before(message_type: type[Message], raw: bytes, words: str) -> None:
    assert unreadable(read_in_pieces(message_type, raw, RequestLimits())).startswith(words)


def test_a_broken_text_behind_very_many_is_not_looked_for() -> None:
    raw = b"\x12\x00" * 100_000 + b"\x12\x01\xff"
    assert len(raw) < wire.INLINE_BYTES
    assert "the bytes are not a pairwire.v1.EmbedRequest" in unreadable(
        reader(embedding_pb2.EmbedRequest, RequestLimits())(raw)
    )
