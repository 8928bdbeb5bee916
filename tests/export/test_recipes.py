"""Choosing how graphs are made: real graphs, made-up times; and one export that measures for real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.progress import Event, StepFinished
from pairwire.export.recipes import DEFAULT, Recipe, name_of
from pairwire.server.package import Package, read_package
from pairwire.server.tuning.measuring import Measure
from pairwire.v1 import manifest_pb2
from tests import checkpoints
from tests.export.test_exporter import logits
from tests.server.tuning.timings import by_name

TRIED = [
    "default",
    "unpadded_attention off",
    "unpadded_attention from 128",
    "SkipLayerNormFusion on",
    "sequence_major off",
    "fold_bias on",
]
"""What a model of 128 tokens is tried with."""


def exported(
    checkpoint: Path, directory: Path, measure: Measure, *, precision: str = "fp32", parity: bool = True
) -> Package:
    config = ExportConfig(checkpoint=str(checkpoint), output=directory, precisions=(precision,), parity=parity)
    return export_checkpoint(config, measure=measure).package


def table(variant: manifest_pb2.Variant) -> dict[str, manifest_pb2.Candidate]:
    (tuning,) = variant.tunings
    assert tuning.subject == "recipe"
    return {candidate.name: candidate for candidate in tuning.candidates}


def test_recipes_are_named_by_what_they_change() -> None:
    assert name_of(DEFAULT) == "default"
    other = Recipe(fold_bias=True, sequence_major=False, unpadded_from=0, disabled_optimizers=())
    assert name_of(other) == "fold_bias on, sequence_major off, unpadded_attention off, SkipLayerNormFusion on"


def test_the_default_stays_where_nothing_is_faster(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    package = exported(cross_encoder_checkpoint, tmp_path / "model", by_name({}))
    (variant,) = package.manifest.variants
    rows = table(variant)
    assert list(rows) == TRIED
    assert [name for name, row in rows.items() if row.chosen] == ["default"]
    assert all(row.max_abs_diff < 1e-5 for row in rows.values())
    assert list(variant.disabled_optimizers) == ["SkipLayerNormFusion"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "PARITY.md",
        "cpu-fp32.onnx",
        "manifest.json",
        "parity.json",
        "tokenizer.json",
    ]


def test_the_fastest_recipe_makes_the_graph(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    times = {"sequence_major off": 9, "fold_bias on, sequence_major off": 8}
    package = exported(cross_encoder_checkpoint, tmp_path / "model", by_name(times))
    (variant,) = package.manifest.variants
    assert table(variant)["fold_bias on, sequence_major off"].chosen
    assert [report.name for report in variant.passes] == [
        "constant_reshapes",
        "prune_last_layer",
        "fold_bias",
        "unpadded_attention",
    ]
    assert variant.passes[-1].rewritten == 0
    assert variant.unpadded_from == 0
    assert variant.parity.passed
    plain = exported(cross_encoder_checkpoint, tmp_path / "plain", by_name({}))
    pairs = list(checkpoints.PAIRS)
    np.testing.assert_allclose(logits(package, pairs), logits(plain, pairs), atol=1e-5)


def test_a_threshold_of_its_own_reaches_server_and_parity(cross_encoder_checkpoint: Path, tmp_path: Path) -> None:
    times = {"unpadded_attention from 128": 5}
    package = exported(cross_encoder_checkpoint, tmp_path / "model", by_name(times), precision="int8")
    assert package.manifest.variants[0].unpadded_from == 128
    assert package.manifest.variants[0].parity.batch_variance < 1e-3


def test_a_recipe_that_scores_otherwise_than_the_checkpoint_is_refused(
    cross_encoder_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pairwire.export.recipes.FP32_LIMIT", -1.0)  # as if any other graph gave other answers
    package = exported(cross_encoder_checkpoint, tmp_path / "model", by_name({"fold_bias on": 5}), parity=False)
    rows = table(package.manifest.variants[0])
    assert rows["default"].chosen
    assert rows["fold_bias on"].reason.startswith("answers differ by")


def test_an_export_that_measures_for_real_passes_parity_and_says_what_it_chose(
    cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    config = ExportConfig(
        checkpoint=str(cross_encoder_checkpoint), output=tmp_path / "model", precisions=("int8", "fp32")
    )
    export_checkpoint(config, events.append)
    for variant in read_package(tmp_path / "model").manifest.variants:
        rows = table(variant)
        (chosen,) = [row for row in rows.values() if row.chosen]
        assert variant.parity.passed
        assert all(row.reason for row in rows.values())
        details = [event.detail for event in events if isinstance(event, StepFinished) and "tune" in event.title]
        assert any(f"recipes, {chosen.name}: {chosen.reason}" in detail for detail in details)


def test_an_export_without_tuning_has_no_table(cross_encoder_package: Path) -> None:
    (variant,) = read_package(cross_encoder_package).manifest.variants
    assert not variant.tunings
    assert [report.name for report in variant.passes] == [
        "constant_reshapes",
        "prune_last_layer",
        "sequence_major",
        "absorb_projections",
        "unpadded_attention",
    ]
