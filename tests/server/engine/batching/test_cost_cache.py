"""Costs on disk: what comes back is what was measured under the very same conditions, or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pairwire.server.engine.batching.buckets import Bucket
from pairwire.server.engine.batching.cost_cache import CostCache, CostKey

KEY = CostKey(
    graph_sha256="ab" * 32,
    disabled_optimizers=("SkipLayerNormFusion",),
    runtime_version="1.31.1",
    provider="CPUExecutionProvider",
    device="Some Processor",
    intra_op_threads=1,
    workers=2,
    usable_cpus=2,
    batch_tokens=512,
    lengths=(8, 16, 512),
    warmup_s=1.5,
)
MEASURED = {Bucket(1, 8): 0.0012345678901234567, Bucket(64, 8): 0.02, Bucket(1, 512): 0.05}
EXPECTED = [frozenset(MEASURED)]


def sealed(content: dict[str, Any]) -> str:
    """Content as the cache writes it, with a checksum that is right."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the content of a file and gives it a checksum that is right."""
    content = json.loads(file.read_text())
    del content["sha256"]
    change(content)
    file.write_text(sealed(content))


@pytest.fixture
def cache(tmp_path: Path) -> CostCache:
    """A cache that holds ``MEASURED``."""
    cache = CostCache(tmp_path / "not" / "there" / "yet", KEY)
    cache.write(MEASURED)
    return cache


def test_what_was_measured_comes_back_to_the_last_digit(cache: CostCache, caplog: pytest.LogCaptureFixture) -> None:
    assert CostCache(cache.file.parent, KEY).read(EXPECTED) == MEASURED
    assert list(cache.file.parent.iterdir()) == [cache.file]
    assert not caplog.records


def test_nothing_there_is_no_surprise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert CostCache(tmp_path / "none", KEY).read(EXPECTED) is None
    assert not caplog.records


OTHERS: dict[str, object] = {
    "graph_sha256": "cd" * 32,
    "disabled_optimizers": (),
    "runtime_version": "1.32.0",
    "provider": "CUDAExecutionProvider",
    "device": "Some Processor v2",
    "intra_op_threads": 2,
    "workers": 1,
    "usable_cpus": 4,
    "batch_tokens": 1024,
    "lengths": (8, 16),
    "warmup_s": 3.0,
}


def test_every_field_of_the_key_is_tried_below() -> None:
    assert set(OTHERS) == {field.name for field in dataclasses.fields(CostKey)}


@pytest.mark.parametrize("field", OTHERS)
def test_costs_of_one_key_are_never_those_of_another(
    field: str, cache: CostCache, caplog: pytest.LogCaptureFixture
) -> None:
    other = CostCache(cache.file.parent, dataclasses.replace(KEY, **{field: OTHERS[field]}))  # type: ignore[arg-type]
    assert other.read(EXPECTED) is None
    assert not caplog.records  # it has a file of its own
    cache.file.rename(other.file)
    assert other.read(EXPECTED) is None
    assert f"it was measured with another {field}; measuring again" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b'{"format": 2, "key"', "it is not JSON"),
        (b"[" * 100_000, "it is not a table of costs"),
        (b"[1, 2]", "it is not a table of costs"),
        (b"{}", "it is not a table of costs"),
        (b" " * (2 << 20), "it is larger than"),
        (sealed({"format": 3, "key": {}, "shapes": []}).encode(), "its format is 3, this version reads 2"),
        (sealed({"format": 2, "key": {}, "shapes": []}).encode(), "its key has other fields"),
        (sealed({"format": 2, "key": None, "shapes": []}).encode(), "its key has other fields"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_a_file_that_is_none_of_ours_is_not_used(
    content: bytes, reason: str, cache: CostCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.file.write_bytes(content)
    assert cache.read(EXPECTED) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{cache.file}: {reason}" in record.message


@pytest.mark.parametrize("keep", [1, 10, 100, -1])
def test_a_file_that_was_cut_is_not_used(keep: int, cache: CostCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.file.write_bytes(cache.file.read_bytes()[:keep])
    assert cache.read(EXPECTED) is None
    assert len(caplog.records) == 1


def test_a_digit_that_flipped_is_found_by_the_checksum(cache: CostCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.file.write_text(cache.file.read_text().replace("0.02]", "0.03]"))
    assert cache.read(EXPECTED) is None
    assert "its checksum is wrong" in caplog.text


@pytest.mark.parametrize(
    "seconds", [0.0, -1.0, float("nan"), float("inf"), 1e9, None, "0.02", True, 1, [0.02]], ids=repr
)
def test_seconds_that_cannot_be_are_not_used(
    seconds: object, cache: CostCache, caplog: pytest.LogCaptureFixture
) -> None:
    changed(cache.file, lambda content: content["shapes"].__setitem__(0, [1, 8, seconds]))
    assert cache.read(EXPECTED) is None
    assert "no batch costs [1, 8, " in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["shapes"].pop(), "its shapes are not those that are measured"),
        (lambda content: content["shapes"].append([2, 8, 0.1]), "its shapes are not those that are measured"),
        (lambda content: content["shapes"].append([1, 8, 0.1]), "it has a shape twice"),
        (lambda content: content["shapes"].append(7), "no batch costs 7"),
        (lambda content: content.update(shapes={}), "its shapes are not a list"),
        (lambda content: content["key"].update(workers=2.0), "it was measured with another workers"),
    ],
)
def test_shapes_that_do_not_fit_are_not_used(
    change: Callable[[dict[str, Any]], object], reason: str, cache: CostCache, caplog: pytest.LogCaptureFixture
) -> None:
    changed(cache.file, change)
    assert cache.read(EXPECTED) is None
    assert reason in caplog.text


def test_a_directory_that_cannot_be_made_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Not by permissions: the tests may run as root, whom they do not stop.
    (tmp_path / "file").write_text("")
    cache = CostCache(tmp_path / "file" / "costs", KEY)
    with caplog.at_level(logging.INFO):
        cache.write(MEASURED)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "not kept for the next start" in record.message
    assert "set cache_dir to a directory that can be written, or to none" in record.message


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = CostCache(tmp_path, KEY)
    (cache.file / "somebody's").mkdir(parents=True)
    assert cache.read(EXPECTED) is None
    assert "it cannot be read" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        cache.write(MEASURED)
    assert "not kept for the next start" in caplog.text
    assert list(tmp_path.iterdir()) == [cache.file]


def test_many_writers_and_readers_never_see_half_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables = [dict.fromkeys(MEASURED, seconds / 7) for seconds in range(1, 9)]
    CostCache(tmp_path, KEY).write(tables[0])

    def work(table: dict[Bucket, float]) -> list[dict[Bucket, float] | None]:
        cache, found = CostCache(tmp_path, KEY), []
        for _ in range(25):
            cache.write(table)
            found.append(cache.read(EXPECTED))
        return found

    with ThreadPoolExecutor(len(tables)) as threads:
        for found in threads.map(work, tables):
            assert all(table in tables for table in found)
    assert not caplog.records
    assert len(list(tmp_path.iterdir())) == 1
