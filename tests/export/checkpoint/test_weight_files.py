"""Damaged files of a checkpoint, an adapter and its base are sentences that name the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint import weight_files
from pairwire.export.errors import CheckpointUnsupported
from tests import checkpoints

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90868376\n"


def pointer(file: Path) -> None:
    file.write_text(POINTER)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_its_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: dict[Callable[[Path], None], str] = {
    pointer: "is a git-lfs pointer in place of the file; run `git lfs pull`",
    cut: "ends after [0-9]+ bytes of [0-9]+",
    cut_in_its_header: "not a whole safetensors file .60 bytes.",
    emptied: "not a whole safetensors file .0 bytes.",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("where", ["weights", "dense", "adapter", "base"])
def test_damaged_weights_are_named(
    where: str, damage: Callable[[Path], None], adapter_directory: Path, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    directory = broken = tmp_path / "checkpoint"
    name = "model.safetensors"
    if where == "dense":
        checkpoints.save_bi_encoder(directory, dense=16)
        name = "2_Dense/model.safetensors"
    elif where == "weights":
        shutil.copytree(cross_encoder_checkpoint, directory)
    else:
        shutil.copytree(adapter_directory, directory)
        base = shutil.copytree(cross_encoder_checkpoint, tmp_path / "base")
        checkpoints.edit_json(directory / "adapter_config.json", base_model_name_or_path=str(base))
        broken, name = (base, name) if where == "base" else (directory, "adapter_model.safetensors")
    damage(broken / name)
    config = ExportConfig(tune=False, checkpoint=str(directory), output=tmp_path / "model")
    with pytest.raises(CheckpointUnsupported, match=rf"{Path(name).name}:? ?{DAMAGES[damage]}"):
        export_checkpoint(config)
    assert not (tmp_path / "model").exists()


def test_pointer_in_place_of_a_small_file_is_named(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    pointer(directory / "tokenizer.json")
    with pytest.raises(CheckpointUnsupported, match=r"checkpoint/tokenizer\.json is a git-lfs pointer"):
        weight_files.check(directory)


def test_whole_files_pass(bi_encoder_checkpoint: Path) -> None:
    weight_files.check(bi_encoder_checkpoint)
    shapes = weight_files.shapes(bi_encoder_checkpoint / "model.safetensors")
    assert shapes["embeddings.position_embeddings.weight"] == (128, 32)
