"""An export of a model that counts as large: recipes are measured on few layers, and the whole graph is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.progress import Event, StepFinished
from tests import checkpoints
from tests.export.test_recipes import table
from tests.server.tuning.timings import by_name


@pytest.mark.parametrize(("precision", "winner"), [("int8", "sequence_major off"), ("fp32", "default")])
def test_what_is_fastest_with_few_layers_makes_the_whole_graph(
    precision: str, winner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pairwire.export.few_layers.few_layers.__kwdefaults__", {"kept": 2, "whole_below": 0})
    events: list[Event] = []
    checkpoint = checkpoints.save_cross_encoder(tmp_path / "checkpoint", layers=4)
    config = ExportConfig(checkpoint=str(checkpoint), output=tmp_path / "model", precisions=(precision,))
    package = export_checkpoint(config, events.append, measure=by_name({winner: 5.0})).package
    (variant,) = package.manifest.variants
    (chosen,) = [row for row in table(variant).values() if row.chosen]
    assert chosen.name == winner
    assert chosen.reason.endswith("measured with 2 of 3 like layers")
    assert variant.parity.passed
    products = [report.rewritten for report in variant.passes if report.name == "quantize_matmul"]
    assert products == ([] if precision == "fp32" else [4 * 6])
    assert ("sequence_major" in [report.name for report in variant.passes]) == (winner == "default")
    assert [event.title for event in events if isinstance(event, StepFinished) and "make" in event.title] == [
        f"make cpu-{precision}"
    ]
