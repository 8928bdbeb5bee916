"""Code that comes with a checkpoint: it runs when a person agrees, at export, and the package says so."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint import own_code
from pairwire.export.checkpoint.loading import load_reference
from pairwire.export.checkpoint.ways import Tracer, Way, is_known, ways
from pairwire.export.errors import ConsentMissing
from pairwire.export.progress import quiet_libraries
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.package import read_package
from tests import custom
from tests.shared import Shared

FILE = "flash_model.py"


@pytest.fixture
def checkpoint(shared: Shared) -> Path:
    def make(directory: Path) -> None:
        with quiet_libraries():
            custom.save_cross_encoder(directory, "flash")

    return shared.directory("own-code/flash", make)


def exported(checkpoint: Path, package: Path, *, trusted: bool) -> None:
    export_checkpoint(
        ExportConfig(
            checkpoint=str(checkpoint),
            output=package,
            precisions=("fp32",),
            tune=False,
            parity=False,
            trust_remote_code=trusted,
        )
    )


def test_package_says_which_code_ran_and_runs_none(checkpoint: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    with pytest.raises(ConsentMissing):
        exported(checkpoint, package, trusted=False)
    exported(checkpoint, package, trusted=True)
    manifest = read_package(package).manifest
    content = (checkpoint / FILE).read_bytes()
    expected = hashlib.sha256(f"{FILE}\0{len(content)}\0".encode() + content).hexdigest()
    assert list(manifest.remote_code.files) == [FILE]
    assert manifest.remote_code.sha256 == expected
    assert expected in json_format.MessageToJson(manifest)
    served = subprocess.run(
        [sys.executable, "-c", SERVE, str(package)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (served.returncode, served.stdout.strip()) == (0, "1 []"), served.stderr


SERVE = """
import asyncio, sys
from pathlib import Path
from pairwire.server.engine import Engine

async def main():
    engine = await Engine.open(Path(sys.argv[1]))
    scored = await engine.score([("a", "b")], timeout_s=60)
    await engine.close()
    print(len(scored.scores), [name for name in sys.modules if name.startswith(("torch", "transformers"))])

asyncio.run(main())
"""


def test_model_of_the_libraries_has_no_code_of_its_own(cross_encoder_checkpoint: Path) -> None:
    with quiet_libraries():
        reference = load_reference(cross_encoder_checkpoint, ModelKind.CROSS_ENCODER)
    assert own_code.ran(reference) is None


def test_class_that_comes_with_a_checkpoint_is_traced_as_it_is(checkpoint: Path) -> None:
    with quiet_libraries():
        reference = load_reference(checkpoint, ModelKind.CROSS_ENCODER, trust_remote_code=True)
    model = reference[0].model
    assert model.config.model_type == "xlm-roberta"  # which optimum would know
    assert not is_known(model)
    first, *_ = found = list(ways(model))
    assert first == Way(Tracer.SCRIPT, "eager")
    assert found == [
        Way(tracer, attention) for attention in ("eager", "sdpa") for tracer in (Tracer.SCRIPT, Tracer.EXPORT)
    ]


def test_without_optimum_torch_traces_what_it_knows(
    cross_encoder_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_libraries():
        model = load_reference(cross_encoder_checkpoint, ModelKind.CROSS_ENCODER)[0].model
    monkeypatch.setattr("pairwire.export.checkpoint.ways.has_optimum", lambda: False)
    assert next(iter(ways(model))) == Way(Tracer.SCRIPT, "eager")
    monkeypatch.setattr("pairwire.export.checkpoint.ways.has_export", lambda: False)
    assert [way.tracer for way in ways(model)] == [Tracer.SCRIPT, Tracer.SCRIPT]
