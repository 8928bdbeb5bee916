"""The table from gRPC status codes to the clients' errors."""

import inspect

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from pairwire.client import ClientError, FieldViolation, InvalidInput, Overloaded, Unavailable, errors


def raised(code: grpc.StatusCode, details: str = "", trailers: tuple = (), start: int = 0) -> ClientError:
    return errors.error_of(code, details, trailers, address="host:1", start=start)


def packed(*violations: tuple[str, str]) -> tuple[tuple[str, bytes], ...]:
    detail = any_pb2.Any()
    found = [error_details_pb2.BadRequest.FieldViolation(field=field, description=why) for field, why in violations]
    detail.Pack(error_details_pb2.BadRequest(field_violations=found))
    other = any_pb2.Any()
    other.Pack(error_details_pb2.DebugInfo(detail="not for us"))
    status = status_pb2.Status(code=3, message="bad", details=[other, detail])
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_code_has_an_error(code: grpc.StatusCode) -> None:
    error = raised(code, "what happened")
    assert type(error) is errors.ERRORS[code]
    assert "what happened" in str(error)
    assert error.message == str(error)


@pytest.mark.parametrize("code", errors.ERRORS)
def test_an_error_without_details_still_says_something(code: grpc.StatusCode) -> None:
    trailers = packed(("pairs", "empty")) if errors.ERRORS[code] is InvalidInput else ()
    assert str(raised(code, trailers=trailers))


def test_every_error_of_the_tree_is_used() -> None:
    tree = {
        found
        for _, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, ClientError) and found is not ClientError
    }
    assert tree == set(errors.ERRORS.values())


def test_every_error_is_in_the_drawing() -> None:
    drawn = errors.__doc__ or ""
    for found in set(errors.ERRORS.values()):
        assert f"── {found.__name__} " in drawn


def test_violations_are_read_and_make_the_sentence() -> None:
    error = raised(
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad request",
        packed(("text_pairs.pairs[2].first", "too long"), ("max_length", "too large")),
        start=256,
    )
    assert isinstance(error, InvalidInput)
    assert error.violations == (
        FieldViolation("pairs[258].first", "too long"),
        FieldViolation("max_length", "too large"),
    )
    assert error.field == "pairs[258].first"
    assert str(error) == "pairs[258].first: too long; max_length: too large"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("documents[0]", "documents[10]"),
        ("texts[3]", "texts[13]"),
        ("query_documents.documents[1]", "documents[11]"),
        ("query_documents.query", "query"),
        ("pairs", "pairs"),
        ("labels[3]", "labels[3]"),
    ],
)
def test_fields_are_told_in_the_callers_numbers(field: str, expected: str) -> None:
    error = raised(grpc.StatusCode.INVALID_ARGUMENT, "", packed((field, "wrong")), start=10)
    assert isinstance(error, InvalidInput)
    assert error.field == expected


@pytest.mark.parametrize(
    "trailers", [(), (("grpc-status-details-bin", b"\xff\xff"),), (("grpc-status-details-bin", "x"),)]
)
def test_details_that_cannot_be_read_leave_the_message(trailers: tuple) -> None:
    error = raised(grpc.StatusCode.INVALID_ARGUMENT, "bad request", trailers)
    assert isinstance(error, InvalidInput)
    assert (str(error), error.violations, error.field) == ("bad request", (), "")


@pytest.mark.parametrize(
    ("pushback", "expected"), [("250", 0.25), (b"250", 0.25), ("0", 0.0), ("-1", None), ("soon", None), (None, None)]
)
def test_push_back_is_told_in_seconds(pushback: str | None, expected: float | None) -> None:
    trailers = () if pushback is None else (("grpc-retry-pushback-ms", pushback),)
    error = raised(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", trailers)
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == expected


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            "Stream removed (CLIENT: Received message larger than max (3276847 vs. 1048576))",
            "host:1: an answer has 3276847 bytes, and this client takes 1048576; send less at once (Client",
        ),
        (
            "SERVER: Received message larger than max (90000532 vs. 67108864)",
            "host:1: a request has 90000532 bytes, and the server takes no more than 67108864",
        ),
    ],
)
def test_a_message_that_is_too_large_is_no_overload(details: str, words: str) -> None:
    error = raised(grpc.StatusCode.RESOURCE_EXHAUSTED, details)
    assert isinstance(error, InvalidInput)
    assert str(error).startswith(words)


def test_an_unreachable_server_is_named_with_what_to_do() -> None:
    error = raised(grpc.StatusCode.UNAVAILABLE, "connection refused")
    assert isinstance(error, Unavailable)
    assert str(error).startswith("host:1: nothing is ready to answer there; start `pairwire serve`")
    assert "connection refused" in str(error)
