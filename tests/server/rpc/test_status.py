"""The table of status codes has no hole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from pairwire.server import errors
from pairwire.server.rpc.status import STATUS_CODES, code_of


def below(root: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in root.__subclasses__():
        if child.__module__.startswith("pairwire.server"):  # the exporter's errors are never on the wire
            yield child
            yield from below(child)


@pytest.mark.parametrize("kind", [*below(errors.PairwireError)], ids=lambda kind: kind.__name__)
def test_every_error_has_an_entry_of_its_own_or_of_an_ancestor(kind: type[BaseException]) -> None:
    assert any(ancestor in STATUS_CODES for ancestor in kind.__mro__)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("field", "reason"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ModelNotFound("no"), grpc.StatusCode.NOT_FOUND),
        (errors.WrongModelKind("no"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.Overloaded("full", retry_after_s=1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.Cancelled("gone"), grpc.StatusCode.CANCELLED),
        (errors.NotReady("loading"), grpc.StatusCode.UNAVAILABLE),
        (errors.EngineFault("fault"), grpc.StatusCode.INTERNAL),
        (errors.PackageInvalid("broken"), grpc.StatusCode.INTERNAL),
        (asyncio.CancelledError(), grpc.StatusCode.CANCELLED),
        (ZeroDivisionError(), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_gets_the_code_of_its_nearest_known_ancestor(error: BaseException, code: grpc.StatusCode) -> None:
    assert code_of(error) is code
