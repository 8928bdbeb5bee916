"""What the workers of a run share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.shared import Shared


def write(directory: Path, text: str = "made") -> None:
    directory.mkdir()
    (directory / "file").write_text(text)


def test_of_workers_that_ask_at_once_one_makes_it_and_all_read_it(tmp_path: Path) -> None:
    made: list[Path] = []
    together = threading.Barrier(4, timeout=120)

    def ask(_: int) -> str:
        together.wait()
        directory = Shared(tmp_path).directory("a/b", lambda path: (made.append(path), write(path)))
        return (directory / "file").read_text()

    with ThreadPoolExecutor(4) as workers:
        assert list(workers.map(ask, range(4))) == ["made"] * 4
    assert made == [tmp_path / "a" / "b"]


def test_what_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    shared = Shared(tmp_path)

    def fail(directory: Path) -> None:
        write(directory, "half")
        raise ValueError("the other half")

    with pytest.raises(ValueError, match="the other half"):
        shared.directory("a", fail)
    assert not (tmp_path / "a").exists()
    assert (shared.directory("a", write) / "file").read_text() == "made"


def test_values_are_made_once_and_each_reader_has_its_own(tmp_path: Path) -> None:
    asked: list[str] = []

    def make() -> list[str]:
        asked.append("value")
        return ["value"]

    shared = Shared(tmp_path)
    shared.value("lists/one", make).append("changed")
    assert shared.value("lists/one", make) == ["value"]
    assert asked == ["value"]
