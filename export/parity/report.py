"""The parity report as files: parity.json with every figure, PARITY.md for people, and lines for the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf import json_format

from pairwire.server.engine.kinds import ModelKind
from pairwire.v1 import manifest_pb2

from ..config import Precision
from ..figures import ParityReport, VariantParity, deciding
from ..int8.findings import Findings
from ..int8.findings import as_lines as findings_lines

JSON_FILE = "parity.json"
TEXT_FILE = "PARITY.md"
_EXPLAINED = (
    "Each row is a tensor that is multiplied. Errors are of the products on calibration texts that the code was not"
    " made for, relative to the deviation of their output: with plain ranges, and with the code that the search chose"
    " (exponent: share of a channel's size that went into the weights; centred: a constant was taken away from each"
    " channel; scale: one of the tensor, or one of each token; channels apart are multiplied in float32)."
)


def write_report(report: ParityReport, directory: Path, findings: Mapping[str, Findings] | None = None) -> None:
    """Writes both files; ``findings`` are those of int8 variants, by their names."""
    found = findings or {}
    (directory / JSON_FILE).write_text(json.dumps(as_dict(report, found), indent=2) + "\n", encoding="utf-8")
    (directory / TEXT_FILE).write_text(as_markdown(report, found), encoding="utf-8")


def as_dict(report: ParityReport, found: Mapping[str, Findings] = MappingProxyType({})) -> dict[str, Any]:
    """The whole report in plain types."""
    return {
        "kind": report.kind.value,
        "spearman_threshold": report.threshold,
        "passed": report.passed,
        "variants": [_variant_dict(variant) for variant in report.variants],
        "quantisation": {name: asdict(findings) for name, findings in found.items()},
    }


_RANKED = {
    ModelKind.CROSS_ENCODER: "scores",
    ModelKind.BI_ENCODER: "pairwise cosines",
    ModelKind.SPARSE_ENCODER: "pairwise dot products",
}


def as_lines(report: ParityReport) -> list[str]:
    """One line a variant, for the screen."""
    return [
        f"{variant.variant}: max {_max_diff(variant.summary)}, mean {variant.summary.mean_abs_diff:.1e},"
        f" Spearman {_spearman(variant.summary)}, batch-mates {variant.summary.batch_variance:.0e}"
        f" - {'passed' if variant.summary.passed else 'FAILED'}"
        for variant in report.variants
    ]


def as_markdown(report: ParityReport, found: Mapping[str, Findings] = MappingProxyType({})) -> str:
    """The report for people."""
    what = "scores after the activation" if report.kind is ModelKind.CROSS_ENCODER else "vector components"
    ranks = _RANKED[report.kind]
    lines = [
        "# Parity with the checkpoint",
        "",
        "Each variant was run through the serving code and compared with sentence-transformers on the original"
        " checkpoint (float32, PyTorch), on texts that are related, half related and unrelated, short to over-long, in"
        " several languages, empty, and full of unusual characters.",
        "",
        f"Differences are of {what}; Spearman is the rank correlation of {ranks}.",
        "",
        "| variant | texts | inputs | max difference | mean difference | Spearman |",
        "|---|---|---|---|---|---|",
    ]
    for variant in report.variants:
        lines += [
            f"| {variant.variant} | {section.origin} | {section.samples} | {section.max_abs_diff:.1e} |"
            f" {section.mean_abs_diff:.1e} | {section.spearman:.4f} |"
            for section in variant.sections
        ]
    lines += ["", "## The same input in other company", ""]
    lines += ["| variant | among 31 strangers | padded to the next bucket |", "|---|---|---|"]
    lines += [
        f"| {variant.variant} | {variant.variance_among_mates:.1e} | {variant.variance_padded:.1e} |"
        for variant in report.variants
    ]
    if any(variant.precision is Precision.INT8_DYNAMIC for variant in report.variants):
        lines += [
            "",
            "`int8-dynamic` takes its activation ranges from each batch, so the score of an input depends on what it is"
            " batched with. `int8` does not.",
        ]
    lines += ["", "## Verdict", ""]
    lines += [f"- {_verdict(variant)}" for variant in report.variants]
    for name, findings in found.items():
        lines += ["", f"## How {name} was quantised", "", _EXPLAINED, "", *findings_lines(findings)]
    return "\n".join(lines) + "\n"


def _verdict(variant: VariantParity) -> str:
    summary = variant.summary
    if variant.precision is Precision.FP32:
        rule = f"largest difference {_max_diff(summary)}, at most {summary.max_abs_diff_limit:.0e}"
    else:
        rule = (
            f"Spearman {_spearman(summary)}, at least {summary.spearman_limit:g};"
            f" off by {summary.mean_abs_diff:.1e} on average, {_max_diff(summary)} at most"
        )
    return f"{variant.variant}: {'passed' if summary.passed else 'failed'} ({rule})"


def _spearman(summary: manifest_pb2.ParitySummary) -> str:
    return deciding(summary.spearman, summary.spearman_limit)


def _max_diff(summary: manifest_pb2.ParitySummary) -> str:
    limit = summary.max_abs_diff_limit
    return deciding(summary.max_abs_diff, limit, ".1e") if limit else f"{summary.max_abs_diff:.1e}"


def _variant_dict(variant: VariantParity) -> dict[str, Any]:
    return {
        "variant": variant.variant,
        "precision": variant.precision.value,
        "summary": json_format.MessageToDict(
            variant.summary, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ),
        "variance_among_mates": variant.variance_among_mates,
        "variance_padded": variant.variance_padded,
        "sections": [asdict(section) for section in variant.sections],
        "worst": [asdict(difference) for difference in variant.worst],
    }
