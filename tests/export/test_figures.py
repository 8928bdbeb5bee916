from __future__ import annotations

import pytest

from pairwire.export.config import Precision
from pairwire.export.figures import ParityReport, VariantParity, deciding
from pairwire.export.parity.report import as_lines, as_markdown
from pairwire.server.engine.kinds import ModelKind
from pairwire.v1 import manifest_pb2


@pytest.mark.parametrize(
    ("value", "limit", "spec", "text"),
    [
        (0.97996, 0.98, ".4f", "0.97996"),
        (0.9799999, 0.98, ".4f", "0.9799999"),
        (0.98, 0.98, ".4f", "0.9800"),
        (0.5, 0.98, ".4f", "0.5000"),
        (0.99996, 1.0, ".4f", "0.99996"),
        (1.0, 0.98, ".4f", "1.0000"),
        (1.0000001e-4, 1e-4, ".2g", "0.00010000001"),
        (3e-4, 1e-4, ".2g", "0.0003"),
        (9.99999e-5, 1e-4, ".1e", "9.99999e-05"),
        (float("nan"), 0.98, ".4f", "nan"),
    ],
)
def test_figures_are_printed_with_the_digits_that_decide(value: float, limit: float, spec: str, text: str) -> None:
    assert deciding(value, limit, spec) == text


def report(**summary: float) -> ParityReport:
    figures = {"samples": 6, "spearman_limit": 0.98, "spearman": 1.0} | summary
    variant = VariantParity("cpu-int8", Precision.INT8, manifest_pb2.ParitySummary(**figures), [], 0.0, 0.0, [])
    return ParityReport(ModelKind.CROSS_ENCODER, 0.98, [variant])


def test_low_rank_correlation_is_not_rounded_up_to_its_limit() -> None:
    failed = report(spearman=0.97996)
    assert "Spearman 0.97996, at least 0.98" in failed.failures[0]
    assert "Spearman 0.97996," in as_lines(failed)[0]
    assert "failed (Spearman 0.97996, at least 0.98" in as_markdown(failed)


def test_figures_that_are_no_numbers_are_called_that() -> None:
    failed = report(max_abs_diff=float("nan"), spearman=float("nan"))
    assert failed.failures == ["cpu-int8 gives nan or infinity; nothing can be compared"]
