"""The one table from Pairwire's errors to gRPC status codes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc

from .. import errors

STATUS_CODES: Mapping[type[BaseException], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.WrongModelKind: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.EngineFault: grpc.StatusCode.INTERNAL,
    errors.StartupError: grpc.StatusCode.INTERNAL,  # never raised by an RPC; here so that the table has no hole
    asyncio.CancelledError: grpc.StatusCode.CANCELLED,  # gRPC cancels the handler when the client has gone
}


def code_of(error: BaseException) -> grpc.StatusCode:
    """The code of the nearest class in the error's ancestry; INTERNAL for what the table does not know."""
    for ancestor in type(error).__mro__:
        code = STATUS_CODES.get(ancestor)
        if code is not None:
            return code
    return grpc.StatusCode.INTERNAL
