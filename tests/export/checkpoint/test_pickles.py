from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.loading import load_reference
from pairwire.export.errors import CheckpointUnsupported
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from tests import checkpoints


class Marking:
    """Writes a file when it is unpickled, and is a tensor's neighbour until then."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (shutil.copyfile, (str(Path(__file__)), str(self._mark)))


def as_pickle(file: Path, mark: Path | None, *, old: bool = False) -> Path:
    """Puts pytorch_model.bin instead of a safetensors file, with a call in it where there is a mark to leave."""
    import torch
    from safetensors.torch import load_file

    content: dict[str, Any] = load_file(file)
    if mark is not None:
        content["code"] = Marking(mark)
    name = {"adapter_model": "adapter_model.bin"}.get(file.stem, "pytorch_model.bin")
    file.unlink()
    target = file.with_name(name)
    torch.save(content, target, _use_new_zipfile_serialization=not old)
    return target


@pytest.fixture
def bi_encoder(tmp_path: Path) -> Path:
    return checkpoints.save_bi_encoder(tmp_path / "bi", dense=8, layers=1)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_a_pickle_that_would_call_something_is_refused(
    folder: str, old: bool, trusted: bool, bi_encoder: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "MARK"
    file = as_pickle(bi_encoder / folder / "model.safetensors", mark, old=old)
    with quiet_libraries(), pytest.raises(CheckpointUnsupported) as caught:
        load_reference(bi_encoder, ModelKind.BI_ENCODER, trust_remote_code=trusted)
    named = f"bi: {file.relative_to(bi_encoder)}, a pickle, would call shutil.copyfile when it is read; Pairwire reads"
    assert str(caught.value).startswith(named)
    assert not mark.exists()


def test_a_checkpoint_cannot_ask_for_pickles_to_be_run(bi_encoder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "MARK"
    as_pickle(bi_encoder / "model.safetensors", mark)
    checkpoints.edit_json(bi_encoder / "sentence_bert_config.json", model_args={"weights_only": False})
    with quiet_libraries(), pytest.raises(CheckpointUnsupported, match=r"model_args\.weights_only is false"):
        load_reference(bi_encoder, ModelKind.BI_ENCODER)
    assert not mark.exists()


def test_an_adapter_in_pickle_format_calls_nothing(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    directory = checkpoints.save_adapter(tmp_path / "adapter", cross_encoder_checkpoint)
    mark = tmp_path / "MARK"
    as_pickle(directory / "adapter_model.safetensors", mark)
    config = ExportConfig(checkpoint=str(directory), output=tmp_path / "package", parity=False, tune=False)
    with pytest.raises(CheckpointUnsupported, match="adapter"):
        export_checkpoint(config)
    assert not mark.exists()


@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_a_pickle_of_tensors_is_read(folder: str, bi_encoder: Path) -> None:
    as_pickle(bi_encoder / folder / "model.safetensors", None)
    with quiet_libraries():
        load_reference(bi_encoder, ModelKind.BI_ENCODER)


def test_a_pickle_that_torch_has_not_written_calls_nothing(bi_encoder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "MARK"
    (bi_encoder / "model.safetensors").unlink()
    (bi_encoder / "pytorch_model.bin").write_bytes(pickle.dumps({"code": Marking(mark)}))
    with (
        quiet_libraries(),
        pytest.raises(CheckpointUnsupported, match=r"pytorch_model\.bin, a pickle, cannot be read as"),
    ):
        load_reference(bi_encoder, ModelKind.BI_ENCODER)
    assert not mark.exists()


@pytest.mark.parametrize("folder", ["", "2_Dense"])
def test_a_damaged_pickle_is_named(folder: str, bi_encoder: Path) -> None:
    file = as_pickle(bi_encoder / folder / "model.safetensors", None)
    file.write_bytes(b"x" * 100)
    with (
        quiet_libraries(),
        pytest.raises(CheckpointUnsupported, match=rf"{file.name}, a pickle, cannot be read as tensors"),
    ):
        load_reference(bi_encoder, ModelKind.BI_ENCODER)
