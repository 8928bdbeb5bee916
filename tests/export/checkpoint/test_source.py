from __future__ import annotations

from pathlib import Path

import pytest

from pairwire.export.checkpoint.source import PACKAGED, find_source
from pairwire.export.errors import CheckpointNotFound


def test_local_directory_is_known_by_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "deep" / "my-model").mkdir(parents=True)
    source = find_source(str(tmp_path / "deep" / "my-model"))
    assert source.name == "my-model"
    assert source.revision == ""


def test_name_of_the_current_directory_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert find_source(".").name == "here"


@pytest.mark.parametrize("checkpoint", ["./missing", "/missing/model", "a/b/c"])
def test_missing_directory_is_not_looked_for_on_the_hub(checkpoint: str) -> None:
    with pytest.raises(CheckpointNotFound, match=r"no such directory$"):
        find_source(checkpoint)


def test_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(CheckpointNotFound, match="a file; expected the directory around it"):
        find_source(str(tmp_path / "model.onnx"))


def test_unreachable_hub_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointNotFound, match="hub cannot be reached"):
        find_source("nobody/no-such-model-of-pairwire")


def test_name_that_is_no_hub_id_is_explained() -> None:
    with pytest.raises(CheckpointNotFound, match="not a hub id either"):
        find_source("what is this?")


@pytest.mark.parametrize("checkpoint", list(PACKAGED))
def test_packaged_weights_stand_in_for_the_hub(checkpoint: str) -> None:
    pytest.importorskip(PACKAGED[checkpoint])
    source = find_source(checkpoint)
    assert source.name == checkpoint
    assert (source.directory / "model.safetensors").is_file()
