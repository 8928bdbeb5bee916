"""What an export is asked to do. One definition for the command line and for Python."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.activation import Activation
from pairwire.server.errors import ConfigInvalid

SPEARMAN_LIMIT = 0.98
"""Lowest rank correlation of an int8 variant with the checkpoint, unless another one is asked for."""

TUNE_BUDGET_S = 30.0
"""Seconds that recipes of a variant are measured, unless others are asked for."""


class Precision(Enum):
    """How a variant computes its matrix products."""

    FP32 = "fp32"
    INT8 = "int8"
    """8 bits, activation ranges fixed at export: a score does not depend on its batch-mates."""
    INT8_DYNAMIC = "int8-dynamic"
    """8 bits, activation ranges taken from each batch: a score moves with its batch-mates."""
    FP16 = "fp16"
    """For an NVIDIA GPU: 16 bits, rows without padding. Pooling and head stay float32."""

    @property
    def provider(self) -> str:
        """Where a variant of this precision runs: ``cpu`` or ``cuda``."""
        return "cuda" if self is Precision.FP16 else "cpu"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant whose rounding is coarse has to keep to."""

    spearman: float = SPEARMAN_LIMIT
    """Lowest rank correlation."""
    max_diff: float | None = None
    """Largest difference of an int8 variant; None for no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedScore:
    """What a person asks to be made of what sentence-transformers gives for a pair before its activation."""

    activation: Activation | None = None
    """None for the checkpoint's own."""
    scale: float = 1.0
    bias: float = 0.0

    @property
    def anything(self) -> bool:
        """Whether it differs from what the checkpoint does."""
        return self != AskedScore()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensitivity:
    """What is asked about the layers of an int8 graph."""

    measure: bool = False
    """Find out what each layer costs."""
    keep_float: int = 0
    """The layers that cost most are left in float32, this many of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """One export. Unset fields (None) follow the checkpoint.

    Raises:
        ConfigInvalid: a value that cannot work, on construction.
    """

    checkpoint: str
    """Local directory or hub id: a checkpoint, or a PEFT adapter."""
    output: Path
    """The package directory to make."""
    precisions: tuple[str, ...] = ("int8",)
    """Values of ``Precision``, one variant each, best first."""
    kind: str | None = None
    """Value of `ModelKind`."""
    name: str | None = None
    """The name under which the model will be served."""
    max_length: int | None = None
    """Most tokens of an input; never more than the checkpoint reads."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings."""
    force: bool = False
    """Replace ``output`` where it exists."""
    check_memory: bool = True
    """Refuse a checkpoint whose export will not fit into memory."""
    tune: bool = True
    """Measure other recipes (`pairwire.export.recipes`) besides the default one, and use what is faster here."""
    tune_budget_s: float = TUNE_BUDGET_S
    """Seconds of that measuring for each variant; what has been measured until then decides."""
    calibration_data: Path | None = None
    """Lines of JSON (see `pairwire.export.texts`) that take the place of the built-in calibration texts."""
    activation: str | None = None
    """Value of `Activation`: what turns a cross-encoder's logits into scores, instead of the checkpoint's own."""
    score_scale: float | None = None
    """A score is ``activation(score_scale * x + score_bias)``, x being what the checkpoint gives before its activation;
    None for 1, or what the checkpoint does."""
    score_bias: float | None = None
    parity: bool = True
    """Compare the variants with the checkpoint."""
    parity_data: Path | None = None
    """Lines of JSON that are compared besides the built-in ones."""
    parity_threshold: float | None = None
    """Lowest Spearman correlation of an int8 variant; None for ``SPEARMAN_LIMIT``."""
    max_diff: float | None = None
    """Largest difference of an int8 variant's score or vector component from the checkpoint's; None for no limit."""
    sensitivity: bool = False
    """Measure what each layer of an int8 variant costs; the table goes into the report."""
    keep_float: int = 0
    """This many layers of an int8 variant, those that cost most, stay float32."""

    @property
    def asked_score(self) -> AskedScore:
        """Its options about scores."""
        return AskedScore(
            activation=None if self.activation is None else Activation(self.activation),
            scale=1.0 if self.score_scale is None else self.score_scale,
            bias=self.score_bias or 0.0,
        )

    def __post_init__(self) -> None:
        known = [precision.value for precision in Precision]
        if not self.precisions:
            raise ConfigInvalid(f"precision: give at least one of {', '.join(known)}")
        for precision in self.precisions:
            if precision not in known:
                raise ConfigInvalid(f"precision: {precision!r} is not one of {', '.join(known)}")
        if len(set(self.precisions)) < len(self.precisions):
            raise ConfigInvalid(f"precision: {', '.join(self.precisions)} names one of them twice")
        if self.kind is not None and self.kind not in [kind.value for kind in ModelKind]:
            raise ConfigInvalid(f"kind: {self.kind!r} is none of cross-encoder, bi-encoder, sparse-encoder")
        if self.activation is not None and self.activation not in [each.value for each in Activation]:
            raise ConfigInvalid(
                f"activation: {self.activation!r} is none of {', '.join(each.value for each in Activation)}"
            )
        if self.score_scale is not None and not 0 < self.score_scale < math.inf:
            raise ConfigInvalid(
                f"score-scale: {self.score_scale} is not a scale that keeps the order; above 0, e.g. 0.2"
            )
        if self.score_bias is not None and not math.isfinite(self.score_bias):
            raise ConfigInvalid(f"score-bias: {self.score_bias} is not a finite number")
        if self.max_length is not None and self.max_length < 8:
            raise ConfigInvalid(f"max-length: {self.max_length} leaves no room for a pair of texts; at least 8 tokens")
        if self.parity_threshold is not None and not -1 <= self.parity_threshold <= 1:
            raise ConfigInvalid(f"parity-threshold: {self.parity_threshold} is not a correlation; between -1 and 1")
        if self.max_diff is not None and not self.max_diff > 0:
            raise ConfigInvalid(f"max-diff: {self.max_diff} is not a difference to allow; a number above 0")
        if not 0 < self.tune_budget_s < float("inf"):
            raise ConfigInvalid(f"tune-budget-s: {self.tune_budget_s} is no time to measure; seconds above 0")
        if self.keep_float < 0:
            raise ConfigInvalid(f"keep-float: {self.keep_float} is no number of layers")
        if (self.keep_float or self.sensitivity) and Precision.INT8.value not in self.precisions:
            raise ConfigInvalid("keep-float, sensitivity: about int8 variants; add --precision int8 or leave them out")
        if self.max_diff is not None and not any(value.startswith("int8") for value in self.precisions):
            raise ConfigInvalid("max-diff: about int8 variants; add --precision int8 or leave it out")
        if self.sensitivity and not self.parity:
            raise ConfigInvalid("sensitivity: its table goes into the parity report; leave out no-parity")
        given = (self.parity_data, self.parity_threshold, self.max_diff)
        if not self.parity and any(value is not None for value in given):
            raise ConfigInvalid("no-parity: contradicts parity-data, parity-threshold and max-diff; leave one side out")
