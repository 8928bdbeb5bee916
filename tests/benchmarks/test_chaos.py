"""Ten seconds of harm; and books that do not balance are noticed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.books import add_up, faults_of, faults_of_counters, table
from benchmarks.chaos.client import Outcomes
from benchmarks.chaos.server import Usage
from pairwire.server.cpus import usable_cpus
from tests.server import toy_packages

MIB = 1 << 20
BEFORE = Usage(100 * MIB, 20, 50)


@pytest.mark.slow
@pytest.mark.skipif(usable_cpus() < 2, reason="two processes need two CPUs")
def test_the_books_balance_after_ten_seconds_of_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = toy_packages.write_cross_encoder(tmp_path / "package")
    code = main(["--package", str(package), "--seconds", "10", "--clients", "2", "--callers", "3"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "the books balance" in out
    assert re.search(r"counted by the server: .*OK [1-9]", out)
    assert "done to the server: " in out


def outcomes() -> Outcomes:
    return Outcomes(sent=3, codes=Counter({("plain", "OK"): 2, ("raise", "INVALID_ARGUMENT"): 1}))


def missing(total: Outcomes) -> None:
    total.sent += 1


def wrong(total: Outcomes) -> None:
    total.wrong.append("plain: 1 is not 2")


def cancelled(total: Outcomes) -> None:
    total.sent += 1
    total.codes["plain", "CANCELLED"] += 1


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (missing, "4 requests were sent and 3 have an outcome"),
        (wrong, "plain: 1 is not 2"),
        (cancelled, "1 plain requests ended with CANCELLED"),
    ],
)
def test_an_outcome_that_is_missing_or_wrong_is_noticed(harm: Callable[[Outcomes], None], sentence: str) -> None:
    total = outcomes()
    assert not list(faults_of(total, BEFORE, BEFORE, recovered=True, exit_code=0))
    harm(total)
    assert list(faults_of(total, BEFORE, BEFORE, recovered=True, exit_code=0)) == [sentence]


def test_the_servers_counters_are_held_against_the_clients_books() -> None:
    books = outcomes()
    books.codes["leave", "CANCELLED"] += 1
    books.sent += 1
    right = {"OK": 2, "INVALID_ARGUMENT": 1, "CANCELLED": 1}

    def found(counted: dict[str, int], own: int = 0, unsure: int = 0) -> list[str]:
        return list(faults_of_counters(books, counted, own=own, unsure=unsure))

    assert found(right) == []
    assert found({**right, "OK": 3, "CANCELLED": 0}) == []  # the answer to who has left
    assert found({**right, "OK": 1}, unsure=1) == []
    assert found({**right, "RESOURCE_EXHAUSTED": 1}, own=1) == []
    (forgotten,) = found({**right, "OK": 1})
    assert forgotten == "clients saw OK 2 times and the server counted 1, at most 0 forgotten"
    assert "the server counted OK 4 times and clients saw 2, at most 1 unseen" in found({**right, "OK": 4})
    assert "the server counted 5 requests and 4 were sent" in found({**right, "UNAVAILABLE": 1})


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (Usage(200 * MIB, 20, 50), "memory went from 100 to 200 MiB"),
        (Usage(100 * MIB, 90, 50), "threads went from 20 to 90"),
        (Usage(100 * MIB, 20, 99), "open files went from 50 to 99"),
    ],
)
def test_what_is_not_given_back_is_noticed(after: Usage, sentence: str) -> None:
    assert list(faults_of(outcomes(), BEFORE, after, recovered=True, exit_code=0)) == [sentence]


def test_a_server_that_does_not_come_back_or_loses_requests_is_noticed() -> None:
    found = list(faults_of(Outcomes(), BEFORE, BEFORE, recovered=False, exit_code=1))
    assert found == ["nothing was answered", "the server did not recover", "the last drain ended with exit code 1"]


def test_outcomes_are_added_up_and_shown_by_kind() -> None:
    total = add_up([outcomes(), outcomes()])
    assert total.sent == 6
    assert table(total) == [
        {"kind": "plain", "INVALID_ARGUMENT": 0, "OK": 4},
        {"kind": "raise", "INVALID_ARGUMENT": 2, "OK": 0},
    ]
