"""A package is the same to the server whichever set of libraries has made it: run by `make test-next`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pairwire.export import toolset
from pairwire.server.engine import Engine
from pairwire.server.package import read_package
from pairwire.v1 import manifest_pb2
from tests import checkpoints

ADAPTER = Path(__file__).parents[2] / "export" / "demo" / "adapter"
OTHER = os.environ.get("PAIRWIRE_OTHER_PYTHON", "")
"""The interpreter of the other set."""
OF_THE_RUN = ("created", "tool_versions", "variants")

pytestmark = pytest.mark.skipif(not OTHER, reason="PAIRWIRE_OTHER_PYTHON: no second set of libraries; make test-next")


def export(python: str, package: Path) -> manifest_pb2.ModelManifest:
    command = [python, "-m", "pairwire.cli.main", "export", str(ADAPTER), "-o", str(package), "--name", "demo"]
    done = subprocess.run(
        [*command, "--precision", "fp32", "--no-tune", "--no-parity"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return read_package(package).manifest


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the demo checkpoint, by this set and by the other one."""
    folder = tmp_path_factory.mktemp("sets")
    export(sys.executable, folder / "ours")
    export(OTHER, folder / "theirs")
    return folder / "ours", folder / "theirs"


def test_sets_are_two(packages: tuple[Path, Path]) -> None:
    releases = [read_package(package).manifest.tool_versions["transformers"] for package in packages]
    assert releases[0] == toolset.look().versions["transformers"]
    assert [release.partition(".")[0] for release in releases] == ["5", "4"]


def test_manifests_say_the_same(packages: tuple[Path, Path]) -> None:
    ours, theirs = (read_package(package).manifest for package in packages)
    assert [field.name for field, _ in ours.ListFields()] == [field.name for field, _ in theirs.ListFields()]
    for name in OF_THE_RUN:
        ours.ClearField(name)  # type: ignore[arg-type]
        theirs.ClearField(name)  # type: ignore[arg-type]
    assert ours == theirs


def test_passes_rewrite_the_same_places(packages: tuple[Path, Path]) -> None:
    # One of the releases computes shapes more often than the other.
    found = [
        {
            each.name: each.rewritten
            for each in read_package(package).manifest.variants[0].passes
            if "shape" not in each.name
        }
        for package in packages
    ]
    assert found[0] == found[1]


async def test_scores_are_equal(packages: tuple[Path, Path]) -> None:
    scores = []
    for package in packages:
        engine = await Engine.open(package)
        try:
            scores.append((await engine.score(list(checkpoints.PAIRS), timeout_s=60)).scores)
        finally:
            await engine.close()
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5, rtol=0)
    assert np.ptp(scores[0]) > 0.1
