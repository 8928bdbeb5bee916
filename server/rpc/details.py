"""What travels with a status code: a message that always fits, and trailing metadata that programs can read."""

from __future__ import annotations

import math

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from ..errors import DeadlineExceeded, InvalidInput, Overloaded

Metadata = tuple[tuple[str, str | bytes], ...]

MAX_MESSAGE_BYTES = 800
"""Longest message. HTTP/2 peers refuse trailers beyond 8 KiB; this one travels three times, once percent-encoded."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailer that gRPC's retry logic obeys: milliseconds to wait before the next attempt."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailer with the serialised ``google.rpc.Status``, by convention of all gRPC libraries."""


def clip(message: str) -> str:
    """The message, cut to ``MAX_MESSAGE_BYTES`` of UTF-8."""
    raw = message.encode("utf-8", errors="replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return message
    return raw[: MAX_MESSAGE_BYTES - 3].decode("utf-8", errors="ignore") + "..."


def trailers(error: BaseException, code: grpc.StatusCode, message: str) -> Metadata:
    """Trailing metadata of an RPC that fails with ``error``; empty for most.

    ``message`` must be the RPC's own message: clients compare the two.
    """
    if isinstance(error, Overloaded | DeadlineExceeded) and error.retry_after_s is not None:
        return ((PUSHBACK_KEY, str(max(1, math.ceil(error.retry_after_s * 1000)))),)
    if isinstance(error, InvalidInput):
        return ((DETAILS_KEY, _bad_request(error, code, message).SerializeToString()),)
    return ()


def _bad_request(error: InvalidInput, code: grpc.StatusCode, message: str) -> status_pb2.Status:
    violation = error_details_pb2.BadRequest.FieldViolation(field=clip(error.field), description=clip(error.reason))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])
