"""The one table from Pairwire's errors to HTTP status codes; what body says why is each family's own matter."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ... import errors
from ...rpc.interceptors import sentence
from .answers import Answer, encode
from .body import TooLarge, UnknownCoding


class UnknownPath(errors.InvalidInput):
    """Nothing is served there."""


class WrongMethod(errors.InvalidInput):
    """Something is served there, by other methods."""

    def __init__(self, path: str, method: str, allowed: str) -> None:
        super().__init__("method", f"{method[:20]} is not served at {path[:200]}; use {allowed}")
        self.allowed = allowed


UPLOAD_TIMED_OUT = 408
"""In place of what the table says of a deadline, where the request itself did not arrive in time."""

STATUS_CODES: Mapping[type[BaseException], int] = {
    errors.InvalidInput: 400,
    UnknownPath: 404,
    WrongMethod: 405,
    TooLarge: 413,
    UnknownCoding: 415,
    errors.ModelNotFound: 404,
    errors.WrongModelKind: 400,
    errors.ModelRefused: 400,
    errors.Unsupported: 400,
    errors.Overloaded: 429,
    errors.DeadlineExceeded: 504,
    errors.Cancelled: 499,  # nobody is there to read it
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotReady: 503,
    errors.EngineFault: 500,
    errors.StartupError: 500,  # never raised by a request; here so that the table has no hole
    asyncio.CancelledError: 503,  # the caller is still there: something inside was cancelled
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed, for a family to put into its own words."""

    error: BaseException
    status: int
    message: str
    """A sentence for a person."""

    @property
    def field(self) -> str | None:
        """Which field of the request is to blame, where one is."""
        return self.error.field if isinstance(self.error, errors.InvalidInput) else None

    @property
    def is_empty(self) -> bool:
        """Whether something is missing that has to be there."""
        return isinstance(self.error, errors.InvalidInput) and self.error.reason.startswith("empty")


@dataclass(frozen=True, slots=True)
class Family:
    """Protocols whose clients understand the same errors."""

    name: str
    body: Callable[[Failure], dict[str, Any]]
    statuses: Mapping[type[BaseException], int] = field(default_factory=dict)
    """Where they differ from the table."""
    error_type: Any = None
    """What ``body`` gives, for the OpenAPI document; a tuple where it is one of several."""

    def status_of(self, error: BaseException) -> int:
        """The status of the nearest class in the error's ancestry; 500 for what no table knows."""
        for ancestor in type(error).__mro__:
            status = self.statuses.get(ancestor) or STATUS_CODES.get(ancestor)
            if status is not None:
                return status
        return 500


def failed(what: str, error: BaseException, family: Family, status: int | None = None) -> Answer:
    """The answer to a request that raised ``error``; a cancellation is raised again where no caller is left."""
    failure = Failure(error, status or family.status_of(error), sentence(what, error))
    return Answer(encode(family.body(failure)), failure.status, headers=_headers(error, failure.status))


def _headers(error: BaseException, status: int) -> tuple[tuple[str, str], ...]:
    """When to come again: in whole seconds, which is all that the standard has, and exactly."""
    if isinstance(error, WrongMethod):
        return (("allow", error.allowed),)
    if status == 401:
        return (("www-authenticate", "Bearer"),)
    wait_s = getattr(error, "retry_after_s", None)
    if wait_s is None and status == 503:
        wait_s = 1.0
    if wait_s is None:
        return ()
    return (("retry-after", str(max(1, math.ceil(wait_s)))), ("retry-after-ms", str(max(1, math.ceil(wait_s * 1000)))))


class PlainError(TypedDict):
    """Why nothing is served."""

    error: str


def plain(failure: Failure) -> dict[str, Any]:
    """For whoever asks for something that no protocol has."""
    return {"error": failure.message}


PLAIN = Family("plain", plain, error_type=PlainError)
