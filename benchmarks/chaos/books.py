"""What must be true after a chaos run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from .client import Outcomes
from .server import Usage

_ALWAYS = frozenset({"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"})
"""A killed process is UNAVAILABLE, one that hangs for good answers INTERNAL to what ran in it."""
ALLOWED: Mapping[str, frozenset[str]] = {
    "plain": _ALWAYS,
    "deadline": _ALWAYS | {"DEADLINE_EXCEEDED"},
    "leave": _ALWAYS | {"CANCELLED"},
    "raise": (_ALWAYS - {"OK"}) | {"INVALID_ARGUMENT"},
    "nan": (_ALWAYS - {"OK"}) | {"INVALID_ARGUMENT"},
    "hang": (_ALWAYS - {"OK"}) | {"INVALID_ARGUMENT", "DEADLINE_EXCEEDED"},
}
"""Kind of request -> the codes that it may end with."""

_MORE_MEMORY = 1.5
_MORE_FILES = 20
_MORE_THREADS = 20
"""Over all processes: gRPC and Python's own pools grow to what they once needed."""


def add_up(parts: Sequence[Outcomes]) -> Outcomes:
    """The outcomes of all client processes."""
    total = Outcomes()
    for part in parts:
        total.sent += part.sent
        total.codes += part.codes
        total.reasons += part.reasons
        total.wrong += part.wrong
    return total


_TELLING = ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
"""Codes that come from a server and from nowhere else."""
_UNSEEN = ("CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
"""A client may see one of these although the server came to another end: the answer was on its way."""


def faults_of_counters(total: Outcomes, counted: Mapping[str, int], *, own: int, unsure: int) -> Iterator[str]:
    """Where the server's own counters and the clients' books contradict each other.

    Args:
        total: the clients' books.
        counted: the server's, by status code.
        own: calls that no client has in its books.
        unsure: at most so many were counted by processes that were killed before they could tell.
    """
    seen = Counter[str]()
    for (_, code), count in total.codes.items():
        seen[code] += count
    unseen = own + sum(seen[code] for code in _UNSEEN)
    for code in _TELLING:
        there = counted.get(code, 0)
        if there + unsure < seen[code]:
            yield f"clients saw {code} {seen[code]} times and the server counted {there}, at most {unsure} forgotten"
        if there > seen[code] + unseen:
            yield f"the server counted {code} {there} times and clients saw {seen[code]}, at most {unseen} unseen"
    ended = sum(counted.values())
    if ended > total.sent + own:
        yield f"the server counted {ended} requests and {total.sent + own} were sent"


def faults_of(total: Outcomes, before: Usage, after: Usage, *, recovered: bool, exit_code: int) -> Iterator[str]:
    """Each thing that is not as it must be."""
    ended = sum(total.codes.values())
    if ended != total.sent:
        yield f"{total.sent} requests were sent and {ended} have an outcome"
    yield from total.wrong[:10]
    for (kind, code), count in sorted(total.codes.items()):
        if code not in ALLOWED[kind]:
            yield f"{count} {kind} requests ended with {code}"
    if not total.codes["plain", "OK"]:
        yield "nothing was answered"
    if not recovered:
        yield "the server did not recover"
    if exit_code:
        yield f"the last drain ended with exit code {exit_code}"
    if after.rss_bytes > _MORE_MEMORY * before.rss_bytes:
        yield f"memory went from {before.rss_bytes >> 20} to {after.rss_bytes >> 20} MiB"
    if after.files > before.files + _MORE_FILES:
        yield f"open files went from {before.files} to {after.files}"
    if after.threads > before.threads + _MORE_THREADS:
        yield f"threads went from {before.threads} to {after.threads}"


def table(total: Outcomes) -> list[dict[str, object]]:
    """A row for each kind of request."""
    codes = sorted({code for _, code in total.codes})
    by_kind: dict[str, Counter[str]] = {}
    for (kind, code), count in total.codes.items():
        by_kind.setdefault(kind, Counter())[code] += count
    return [{"kind": kind, **{code: found[code] for code in codes}} for kind, found in sorted(by_kind.items())]
