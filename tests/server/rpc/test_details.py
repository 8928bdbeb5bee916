"""Messages fit into trailers, and programs can read what travels beside them."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from pairwire.server.errors import InvalidInput, NotReady, Overloaded
from pairwire.server.rpc.details import DETAILS_KEY, MAX_MESSAGE_BYTES, PUSHBACK_KEY, clip, trailers


@pytest.mark.parametrize(("retry_after_s", "milliseconds"), [(0.0, "1"), (0.0101, "11"), (2.0, "2000")])
def test_push_back_is_rounded_up_to_at_least_a_millisecond(retry_after_s: float, milliseconds: str) -> None:
    error = Overloaded("full", retry_after_s=retry_after_s)
    assert trailers(error, grpc.StatusCode.RESOURCE_EXHAUSTED, "full") == ((PUSHBACK_KEY, milliseconds),)


def test_bad_input_names_its_field_for_programs() -> None:
    error = InvalidInput("documents[3]", "too long")
    ((key, raw),) = trailers(error, grpc.StatusCode.INVALID_ARGUMENT, error.message)
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    detail = error_details_pb2.BadRequest()
    assert key == DETAILS_KEY
    assert (status.code, status.message) == (3, "documents[3]: too long")
    assert status.details[0].Unpack(detail)
    assert [(each.field, each.description) for each in detail.field_violations] == [("documents[3]", "too long")]


def test_other_errors_have_no_trailers() -> None:
    assert trailers(NotReady("loading"), grpc.StatusCode.UNAVAILABLE, "loading") == ()


def test_short_messages_stay_as_they_are() -> None:
    assert clip("too long") == "too long"


@pytest.mark.parametrize("character", ["x", "é", "猫", "🤷"])
def test_long_messages_are_cut_between_characters(character: str) -> None:
    cut = clip(character * 5000)
    assert len(cut.encode()) <= MAX_MESSAGE_BYTES
    assert cut == character * (len(cut) - 3) + "..."
