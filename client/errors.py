"""The one tree of errors that the clients raise, and the one table from gRPC status codes to it.

ClientError
├── InvalidInput        what was given cannot be served: which field, why (INVALID_ARGUMENT, OUT_OF_RANGE)
├── ModelNotFound       no loaded model has that name (NOT_FOUND)
├── WrongModelKind      the model cannot do that (FAILED_PRECONDITION)
├── NotPermitted        the server does not accept who asks (UNAUTHENTICATED, PERMISSION_DENIED)
├── NotSupported        the server is no Pairwire, or an older one (UNIMPLEMENTED)
├── Overloaded          the queue was full at every attempt (RESOURCE_EXHAUSTED)
├── DeadlineExceeded    no answer in time (DEADLINE_EXCEEDED)
├── Cancelled           the call was cancelled (CANCELLED)
├── Unavailable         nobody answers there, or it is starting or draining (UNAVAILABLE)
└── ServerFault         the server failed or answered nonsense (INTERNAL and every other code)

Example::

    try:
        ranking = client.rerank(query, documents, timeout_s=0.2)
    except InvalidInput as error:
        print(error.violations)  # which field, and why
    except (DeadlineExceeded, Overloaded, Unavailable):
        ranking = documents  # go on without a ranking
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from .proxy import Proxy

PUSHBACK_TRAILER = "grpc-retry-pushback-ms"
STATUS_TRAILER = "grpc-status-details-bin"


class ClientError(Exception):
    """Root of all errors of the clients; ``str(error)`` is a sentence for a person."""

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One reason why an input cannot be served."""

    field: str
    """Path of the culprit in what the caller gave, e.g. ``pairs[3].first``."""
    reason: str


class InvalidInput(ClientError):
    """Input that cannot be served. ``violations`` has at least one entry where the culprit is known."""

    def __init__(self, message: str, violations: Iterable[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)

    @classmethod
    def at(cls, field: str, reason: str) -> InvalidInput:
        """The error for one field."""
        return cls(f"{field}: {reason}", [FieldViolation(field, reason)])

    @property
    def field(self) -> str:
        """Path of the first culprit, or an empty string."""
        return self.violations[0].field if self.violations else ""


class ModelNotFound(ClientError):
    """No loaded model has that name."""


class WrongModelKind(ClientError):
    """The model exists but cannot do what was asked: it is of another kind, or its package lacks what that needs."""


class NotPermitted(ClientError):
    """The server (or a proxy before it) does not accept the credentials."""


class NotSupported(ClientError):
    """What answers there does not know the call."""


class Overloaded(ClientError):
    """The queue was full at every attempt. ``retry_after_s`` is the server's estimate of when it has room, or None."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ClientError):
    """There was no answer in time."""


class Cancelled(ClientError):
    """The call was cancelled before its answer."""


class Unavailable(ClientError):
    """Nobody answers at the address, or the server is starting or draining; retries did not help."""


class ServerFault(ClientError):
    """The server failed, or answered something that no Pairwire server answers."""


ERRORS: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: WrongModelKind,
    grpc.StatusCode.UNAUTHENTICATED: NotPermitted,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.DATA_LOSS: ServerFault,
    grpc.StatusCode.ABORTED: ServerFault,
    grpc.StatusCode.ALREADY_EXISTS: ServerFault,
}
"""Every status code but OK."""

_ADVICE = {
    grpc.StatusCode.UNAVAILABLE: "nothing is ready to answer there; start `pairwire serve`, or check the address",
    grpc.StatusCode.UNIMPLEMENTED: "what answers there is no Pairwire server, or an older one",
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time; allow more (timeout_s) or send less",
}

_TOO_LARGE = re.compile(r"(CLIENT|SERVER): Received message larger than max \((\d+) vs\. (\d+)\)")
"""What gRPC says, with RESOURCE_EXHAUSTED, of a message that one side does not take: no queue, and no use to wait."""

Metadata = Iterable[tuple[str, str | bytes]]


def error_of(
    code: grpc.StatusCode,
    details: str,
    trailers: Metadata,
    *,
    address: str,
    start: int = 0,
    proxy: Proxy | None = None,
) -> ClientError:
    """The error of a failed call, which may have gone through a proxy.

    ``start`` is where the request's inputs begin in what the caller gave: a large input travels as several requests,
    and the server numbers from the beginning of each.
    """
    found = dict(trailers)
    kind = ERRORS[code]
    if kind is InvalidInput:
        violations = _violations(found.get(STATUS_TRAILER), start)
        sentence = "; ".join(f"{violation.field}: {violation.reason}" for violation in violations)
        return InvalidInput(sentence or details, violations)
    if large := _TOO_LARGE.search(details):
        return InvalidInput(f"{address}: {_too_large(*large.groups())}")
    advice = _advice(code, proxy)
    sentence = f"{address}: {advice} ({details or code.name})" if advice else details or f"{address}: {code.name}"
    if kind is Overloaded:
        return Overloaded(sentence, retry_after_s=_seconds(found.get(PUSHBACK_TRAILER)))
    return kind(sentence)


def _advice(code: grpc.StatusCode, proxy: Proxy | None) -> str | None:
    usual = _ADVICE.get(code)
    if proxy is None or usual is None:
        return usual
    return proxy.advice if code is grpc.StatusCode.UNAVAILABLE else f"{usual}; {proxy.advice}"


def _too_large(side: str, size: str, limit: str) -> str:
    if side == "CLIENT":
        return (
            f"an answer has {size} bytes, and this client takes {limit}; send less at once"
            " (ClientOptions.split.max_items), or raise ClientOptions.max_receive_bytes"
        )
    return (
        f"a request has {size} bytes, and the server takes no more than {limit} from the network; send less at once"
        " (ClientOptions.split.max_bytes)"
    )


def _violations(packed: str | bytes | None, start: int) -> list[FieldViolation]:
    """The google.rpc.BadRequest of the trailer, with indices of the caller's input; nothing where it cannot be read."""
    if not isinstance(packed, bytes):
        return []
    status, found = status_pb2.Status(), error_details_pb2.BadRequest()
    try:
        status.ParseFromString(packed)
    except DecodeError:
        return []
    violations = []
    for detail in status.details:
        if detail.Unpack(found):
            for entry in found.field_violations:
                violations.append(FieldViolation(_as_given(entry.field, start), entry.description))
    return violations


def _as_given(field: str, start: int) -> str:
    """``text_pairs.pairs[3].first`` of a request that begins at pair 256 is ``pairs[259].first`` to the caller."""
    field = re.sub(r"^(text_pairs|query_documents|token_id_pairs)\.", "", field)
    field = re.sub(r"^token_ids\b", "texts", field)
    return re.sub(
        r"^(pairs|documents|texts)\[(\d+)\]", lambda match: f"{match[1]}[{int(match[2]) + start}]", field, count=1
    )


def _seconds(pushback_ms: str | bytes | None) -> float | None:
    try:
        milliseconds = int(pushback_ms or -1)
    except ValueError:
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None
