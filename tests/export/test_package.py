from __future__ import annotations

from pathlib import Path

import pytest

from pairwire.export.errors import OutputInvalid
from pairwire.export.package import check_target, staged
from pairwire.server.package import MANIFEST_FILE


def make_package(directory: Path, content: str = "{}") -> Path:
    directory.mkdir(parents=True)
    (directory / MANIFEST_FILE).write_text(content)
    return directory


def test_staged_directory_becomes_the_target(tmp_path: Path) -> None:
    with staged(tmp_path / "model") as stage:
        (stage / "file").write_text("content")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_block_fails(error: type[BaseException], tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "model") as stage:
            (stage / "file").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_existing_package_survives_a_failed_replacement(tmp_path: Path) -> None:
    make_package(tmp_path / "model", "old")

    def fail() -> None:
        with staged(tmp_path / "model"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "model" / MANIFEST_FILE).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_existing_package_is_replaced_as_a_whole(tmp_path: Path) -> None:
    make_package(tmp_path / "model", "old")
    (tmp_path / "model" / "stale").touch()
    with staged(tmp_path / "model") as stage:
        (stage / MANIFEST_FILE).write_text("new")
    assert [path.name for path in (tmp_path / "model").iterdir()] == [MANIFEST_FILE]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_free_target_is_accepted_and_its_parents_are_made(tmp_path: Path) -> None:
    check_target(tmp_path / "a" / "b" / "model", force=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_empty_directory_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    check_target(tmp_path / "model", force=False)


def test_existing_package_needs_force(tmp_path: Path) -> None:
    make_package(tmp_path / "model")
    with pytest.raises(OutputInvalid, match="--force replaces it"):
        check_target(tmp_path / "model", force=False)
    check_target(tmp_path / "model", force=True)


def test_directory_that_is_no_package_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(OutputInvalid, match="not a model package, so it is not replaced"):
        check_target(tmp_path / "home", force=True)


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(OutputInvalid, match="not a directory"):
        check_target(tmp_path / "model", force=True)


def test_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputInvalid, match="cannot be written there"):
        check_target(tmp_path / "file" / "model", force=False)
