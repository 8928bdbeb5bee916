"""The figures of a comparison with the checkpoint, and the limits that they must keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pairwire.server.engine.kinds import ModelKind
from pairwire.v1 import manifest_pb2

from .config import Precision

FP32_LIMIT = 1e-4
"""Largest difference of a float32 score or vector component, per unit of the largest reference value above 1."""
FP16_LIMIT = 2e-2
"""The same of a float16 variant. Trained models are off by a tenth of it; a random one whose head is steep, by half."""
_MOST_DIGITS = 17
"""As many as a float64 has."""
MAX_DIFF_LIMITS = {Precision.FP32: FP32_LIMIT, Precision.FP16: FP16_LIMIT}


@dataclass(frozen=True, slots=True)
class Difference:
    """One input and how far the variant is off."""

    origin: str
    index: int
    tokens: int
    difference: float


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one set of texts."""

    origin: str
    samples: int
    max_abs_diff: float
    mean_abs_diff: float
    spearman: float


@dataclass(frozen=True, slots=True)
class VariantParity:
    """All figures of a variant. ``summary`` is what the manifest keeps."""

    variant: str
    precision: Precision
    summary: manifest_pb2.ParitySummary
    sections: Sequence[Section]
    variance_among_mates: float
    """Largest difference of an input alone and among 31 others of mixed lengths."""
    variance_padded: float
    """Largest difference of an input alone and padded to the next bucket."""
    worst: Sequence[Difference]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The variants of one export, in the package's order."""

    kind: ModelKind
    threshold: float
    """The Spearman limit of int8 variants that was in force."""
    variants: Sequence[VariantParity]

    @property
    def passed(self) -> bool:
        """Whether every variant keeps to its limit."""
        return all(variant.summary.passed for variant in self.variants)

    @property
    def failures(self) -> list[str]:
        """A sentence for each variant that does not."""
        return [_failure(variant) for variant in self.variants if not variant.summary.passed]


def deciding(value: float, limit: float, spec: str = ".4f") -> str:
    """``value`` in the format ``spec``, with as many more digits as show on which side of ``limit`` it is."""
    kind, digits = spec[-1], int(spec[1:-1])
    for more in range(digits, _MOST_DIGITS):
        text = f"{value:.{more}{kind}}"
        shown = float(text)
        if (shown < limit) == (value < limit) and (shown > limit) == (value > limit):
            return text
    return repr(value)


def _failure(variant: VariantParity) -> str:
    summary = variant.summary
    if not (math.isfinite(summary.max_abs_diff) and math.isfinite(summary.spearman)):
        return f"{variant.variant} gives nan or infinity; nothing can be compared"
    if summary.max_abs_diff_limit and not summary.max_abs_diff <= summary.max_abs_diff_limit:
        asked = variant.precision not in MAX_DIFF_LIMITS
        way_out = " (--max-diff); fp32 differs less, and int8 with --keep-float N may" if asked else ""
        return (
            f"{variant.variant} differs from the checkpoint by"
            f" {deciding(summary.max_abs_diff, summary.max_abs_diff_limit, '.2g')},"
            f" allowed {summary.max_abs_diff_limit:.2g}{way_out}"
        )
    return (
        f"{variant.variant} ranks unlike the checkpoint: Spearman"
        f" {deciding(summary.spearman, summary.spearman_limit)}, at least {summary.spearman_limit:g}"
        " (--parity-threshold)"
    )
