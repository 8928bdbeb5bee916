"""`make demo`: with a tiny package instead of the demo's, and the real export, server and client."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest

from pairwire.cli import demo, exits

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter() -> Path:
    with resources.as_file(resources.files("pairwire.export.demo")) as directory:
        return directory / "adapter"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(package: Path, origin: dict[str, str]) -> None:
    shutil.copytree(package, demo.PACKAGE)
    demo.MADE_FROM.write_text(json.dumps(origin))


def test_a_repeated_demo_ranks_without_exporting(
    here: Path, adapter: Path, cross_encoder_package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(cross_encoder_package, demo.fingerprint(adapter))
    assert demo.main() == exits.OK
    out = capfd.readouterr().out
    for step in (
        "the int8 package is there already",
        "passed",
        "ready on 127.0.0.1:",
        "pairs/s",
        "exit code 0",
        "done in",
    ):
        assert step in out
    queries = demo.read_queries(adapter.parent / "texts.json")
    assert len(queries) >= 3
    for query, documents in queries:
        assert f"? {query}" in out
        assert all(documents[at][:30] in out for at in range(len(documents)))


def test_the_export_of_a_checkpoint_is_current_until_something_changes(
    here: Path, cross_encoder_checkpoint: Path
) -> None:
    origin = {"adapter_sha256": "1", "pairwire": "2"}
    assert not demo.is_current(origin)
    demo.export(cross_encoder_checkpoint, origin)
    assert demo.is_current(origin)
    assert not demo.is_current({**origin, "adapter_sha256": "3"})
    (demo.PACKAGE / "cpu-int8.onnx").write_bytes(b"damaged")
    assert not demo.is_current(origin)


def test_a_failed_export_is_told_and_not_taken_for_done(here: Path, tmp_path: Path) -> None:
    with pytest.raises(exits.CommandError, match="the export failed with exit code"):
        demo.export(tmp_path / "no such checkpoint", {})
    assert not demo.is_current({})


def test_the_fingerprint_follows_the_adapters_files(tmp_path: Path, adapter: Path) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    assert demo.fingerprint(copy) == demo.fingerprint(adapter)
    (copy / "adapter_config.json").write_text("{}")
    assert demo.fingerprint(copy) != demo.fingerprint(adapter)
    with pytest.raises(exits.CommandError, match="the demo's adapter is missing"):
        demo.fingerprint(tmp_path)


def test_a_damaged_server_ends_the_demo_with_its_last_lines(
    here: Path,
    adapter: Path,
    cross_encoder_package: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(cross_encoder_package, demo.fingerprint(adapter))
    monkeypatch.setenv("PAIRWIRE_WORKERS", "none at all")
    assert demo.main() == exits.FAILED
    err = capfd.readouterr().err
    assert "the server could not start" in err
    assert "its last lines" in err
    assert "PAIRWIRE_WORKERS" in err
