"""A pytest plugin that keeps one test's fault from failing another test.

What a test leaves open is reported by whichever test runs when the garbage collector finds it. So each test's own
garbage is collected at its own end, and what a failed test left open is dropped unreported: the failure is what counts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Generator, Iterator

import pytest


def refuse_to_fork() -> None:
    """Runs before every fork of this process. What it raises reaches pytest as an unraisable exception: an error."""
    raise RuntimeError("a child was forked: gRPC's and torch's threads hold locks that it never gets; start a program")


def pytest_configure() -> None:
    """Watches for forks. Children that `subprocess` starts without ``preexec_fn`` are no forks."""
    os.register_at_fork(before=refuse_to_fork)


@pytest.fixture(autouse=True)
def own_garbage() -> Iterator[None]:
    """Collects what a test leaves in cycles while it still is this test that is blamed for it."""
    yield
    gc.collect(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Drops what a failed test left open, before the next test starts."""
    before = item.session.testsfailed
    result = yield
    if item.session.testsfailed > before:
        _drop_leftovers()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes what a test has logged or printed that is not UTF-8: a worker could not send it, and all would end."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report


def _drop_leftovers() -> None:
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # pytest keeps the failed test's frames here
        with contextlib.suppress(AttributeError):
            delattr(sys, name)
    reporting, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = reporting
