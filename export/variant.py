"""A graph that was made, and the one place that writes what the manifest says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pairwire.server.package import sha256_of
from pairwire.v1 import manifest_pb2

from . import storage
from .config import Precision
from .int8.findings import Findings
from .texts import Texts


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeVariant:
    """A graph on disk, how it was made, and how it must be run."""

    precision: Precision
    file: Path
    inputs: Sequence[str]
    output: str
    passes: Sequence[manifest_pb2.PassReport]
    """In the order in which they ran."""
    disabled_optimizers: tuple[str, ...] = ()
    """Of ONNX Runtime."""
    unpadded_from: int = 0
    """Tokens from which rows run alone; 0 for none."""
    findings: Findings | None = None
    """What the search for int8 codes found; None for other precisions."""

    @property
    def name(self) -> str:
        """E.g. ``cpu-int8``."""
        return f"{self.precision.provider}-{self.precision.value}"

    @property
    def size_bytes(self) -> int:
        """Of the graph and its weights."""
        data = storage.data_file(self.file)
        return self.file.stat().st_size + (data.stat().st_size if data.exists() else 0)

    @property
    def done(self) -> str:
        """The passes, for a person."""
        return ", ".join(f"{report.name} {report.rewritten}" for report in self.passes)


def message_of(
    made: MadeVariant,
    *,
    calibration: Texts,
    tuning: manifest_pb2.Tuning | None = None,
    parity: manifest_pb2.ParitySummary | None = None,
) -> manifest_pb2.Variant:
    """What the manifest says of a variant; reads its files for their digests."""
    data = storage.data_file(made.file)
    beside = data.exists()
    return manifest_pb2.Variant(
        name=made.name,
        file=made.file.name,
        provider=made.precision.provider,
        precision=made.precision.value,
        sha256=sha256_of(made.file),
        size_bytes=made.file.stat().st_size,
        data_file=data.name if beside else "",
        data_sha256=sha256_of(data) if beside else "",
        data_size_bytes=data.stat().st_size if beside else 0,
        inputs=made.inputs,
        output=made.output,
        passes=made.passes,
        disabled_optimizers=made.disabled_optimizers,
        unpadded_from=made.unpadded_from,
        calibration=None if made.findings is None else _calibration(made.findings, calibration),
        tunings=[] if tuning is None else [tuning],
        parity=parity,
    )


def _calibration(findings: Findings, texts: Texts) -> manifest_pb2.Calibration:
    calibration = findings.as_calibration()
    calibration.data, calibration.samples = texts.origin, len(texts.inputs)
    return calibration
