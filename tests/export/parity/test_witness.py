from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pairwire.export.checkpoint import ways
from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.checkpoint.ways import Tracer, Way
from pairwire.export.errors import CheckpointUnsupported
from pairwire.export.graph import export_graph
from pairwire.export.parity.compare import Reference
from pairwire.export.parity.witness import Witness
from pairwire.export.progress import quiet_libraries
from pairwire.export.texts import Texts
from tests import checkpoints

WEIGHTS = "model.safetensors"


def opened(directory: Path) -> Checkpoint:
    with quiet_libraries():
        return open_checkpoint(find_source(str(directory)), directory)


def texts_of(checkpoint: Checkpoint) -> Texts:
    pairs = checkpoint.kind.value == "cross-encoder"
    return Texts(checkpoints.PAIRS if pairs else [(text,) for text in checkpoints.TEXTS], "built-in")


def scaled(directory: Path, factor: float, part: str) -> None:
    """Multiplies the tensors whose names contain ``part``."""
    tensors = load_file(directory / WEIGHTS)
    save_file(
        {name: tensor * np.float32(factor) if part in name else tensor for name, tensor in tensors.items()},
        directory / WEIGHTS,
        metadata={"format": "pt"},
    )


@pytest.fixture
def one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one way to a graph: that the others are tried where it is wrong is tested where they are."""
    monkeypatch.setattr(ways, "ways", lambda model: iter([Way(Tracer.SCRIPT)]))


@pytest.mark.usefixtures("one_way")
@pytest.mark.parametrize("fixture", ["cross_encoder_checkpoint", "bi_encoder_checkpoint"])
def test_what_is_traced_must_say_what_the_reference_said(
    fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "checkpoint"))
    checkpoint = opened(directory)
    with quiet_libraries():
        witness = Witness(checkpoint, texts_of(checkpoint))
        checkpoint.release()
        (tmp_path / "same").mkdir()
        export_graph(checkpoint, tmp_path / "same", witness.check)
        scaled(directory, 1.01, "layer.1.output.dense.weight")
        (tmp_path / "other").mkdir()
        with pytest.raises(CheckpointUnsupported, match=r"what is traced differs from .*checkpoint: by .*no package"):
            export_graph(checkpoint, tmp_path / "other", witness.check)


@pytest.mark.usefixtures("one_way")
def test_activation_does_not_hide_another_head(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(cross_encoder_checkpoint, tmp_path / "checkpoint"))
    scaled(directory, 1e4, "classifier")  # every score is 0 or 1
    checkpoint = opened(directory)
    with quiet_libraries():
        witness = Witness(checkpoint, texts_of(checkpoint))
        scaled(directory, 2, "classifier")
        with pytest.raises(CheckpointUnsupported, match="what is traced differs"):
            export_graph(checkpoint, tmp_path, witness.check)


@pytest.mark.parametrize("make", [Witness, lambda checkpoint, texts: Reference(checkpoint, [texts])])
@pytest.mark.parametrize("fixture", ["cross_encoder_checkpoint", "bi_encoder_checkpoint"])
def test_reference_that_gives_no_numbers_is_nothing_to_compare_with(
    make: object, fixture: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "checkpoint"))
    scaled(directory, 1e38, "layer.1.output.dense.weight")  # finite itself, but no sum over it is
    checkpoint = opened(directory)
    assert callable(make)
    with quiet_libraries(), pytest.raises(CheckpointUnsupported, match=r"itself gives nan or infinity for (6|10) of"):
        make(checkpoint, texts_of(checkpoint))


def test_released_checkpoint_holds_no_weights(cross_encoder_checkpoint: Path) -> None:
    checkpoint = opened(cross_encoder_checkpoint)
    checkpoint.release()
    assert {tensor.device.type for tensor in checkpoint.reference.parameters()} == {"meta"}
    assert checkpoint.reference.tokenizer("a cat").input_ids
