"""Exports the checkpoint of a case by the steps of `export.exporter`, and tells what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from pairwire.export import CheckpointUnsupported, ExportConfig, export_checkpoint, passes
from pairwire.export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pairwire.export.checkpoint.source import find_source
from pairwire.export.config import AskedScore, Precision
from pairwire.export.graph import export_graph, made_by
from pairwire.export.packed_variant import make_packed
from pairwire.export.parity.compare import Reference, compare
from pairwire.export.parity.witness import Witness
from pairwire.export.progress import quiet_libraries
from pairwire.export.recipes import DEFAULT, Maker
from pairwire.export.texts import calibration_texts, parity_texts
from pairwire.export.variant import MadeVariant
from pairwire.server.engine.outputs.heads import Activation
from tests import packing

from .case import Case, Refusal

SHOWN = (
    *(
        "constant_reshapes",
        "prune_last_layer",
        "sequence_major",
        "absorb_projections",
        "unpadded_attention",
        "quantize_matmul",
    ),
    *("skip_layer_norm", "bias_gelu", "packed", "embed_layer_norm"),
)
"""Passes whose counts say something of the architecture; others count operators, or follow from weights."""


@dataclass(frozen=True, slots=True)
class Row:
    """A variant, or why there is none."""

    model: str
    task: str
    precision: str
    architecture: str = ""
    """transformers' model type."""
    difference: float = 0.0
    """Largest difference from sentence-transformers, per unit of the largest number above 1: of the logits where there
    is one label, of scores where there are several, of components of vectors."""
    spearman: float = 0.0
    passes: Mapping[str, int] | None = None
    """None where the variant is refused."""
    reasons: Mapping[str, str] | None = None
    """Why a pass rewrites nothing, or not everything."""
    refused: str = ""
    traced_by: str = ""
    """What wrote the graph."""


def measure(case: Case, folder: Path) -> list[Row]:
    """The rows of a case; ``folder`` is an empty directory for files.

    Raises:
        ExportError: it cannot be exported.
    """
    (folder / "graph").mkdir()
    with quiet_libraries():
        case.make(folder / "checkpoint")
        checkpoint = _opened(folder / "checkpoint", case.asked)
        texts = parity_texts(checkpoint.kind, checkpoint.rules.max_length)
        reference = Reference(checkpoint, [texts])
        plain = export_graph(checkpoint, folder / "graph", Witness(checkpoint, texts).check)
    graph = packing.copy(plain)
    reports = [rewrite(graph) for rewrite in passes.ALWAYS]
    rows = []
    for precision in map(Precision, case.precisions):
        maker = Maker(graph, reports, precision, checkpoint, calibration_texts(checkpoint.kind))
        file = folder / f"cpu-{precision.value}.onnx"
        rows.append(_row(case, reference, maker.make(DEFAULT, file)))
    rows.append(_half(case, reference, plain, folder / "cuda-fp16.onnx"))
    return [replace(row, traced_by=made_by(plain)) for row in rows]


def refused(case: Refusal, folder: Path) -> str:
    """What the export of a checkpoint says that cannot be exported; empty where it can."""
    with quiet_libraries():
        case.make(folder / "checkpoint")
    config = ExportConfig(
        tune=False,
        checkpoint=str(folder / "checkpoint"),
        output=folder / "model",
        precisions=("fp32",),
        parity=False,
        trust_remote_code=case.trusted,
    )
    try:
        export_checkpoint(config)
    except CheckpointUnsupported as error:
        return str(error)
    return ""


def _opened(directory: Path, asked: AskedScore) -> Checkpoint:
    """The checkpoint; without its activation where it has one label, as that would hide what large logits differ by."""
    import torch

    source = find_source(str(directory))
    checkpoint = open_checkpoint(source, source.directory, trust_remote_code=True, asked=asked)
    if len(checkpoint.labels) != 1:
        return checkpoint
    checkpoint.reference.activation_fn = torch.nn.Identity()
    bare = replace(asked, activation=Activation.IDENTITY) if asked.anything else asked
    return replace(checkpoint, activation=Activation.IDENTITY, asked=bare)


def _half(case: Case, reference: Reference, plain: ModelProto, file: Path) -> Row:
    checkpoint = reference.checkpoint
    try:
        variant = make_packed(plain, checkpoint, file)
    except CheckpointUnsupported as error:
        return Row(case.model, case.task, "fp16", checkpoint.architecture, refused=str(error))
    return _row(case, reference, variant)


def _row(case: Case, reference: Reference, variant: MadeVariant) -> Row:
    parity = compare(reference, variant).summary
    if reference.checkpoint.static:  # no pass has anything to look at but the table
        reports = [report for report in variant.passes if report.rewritten]
    else:
        reports = [report for report in variant.passes if report.name in SHOWN]
    return Row(
        model=case.model,
        task=case.task,
        precision=variant.precision.value,
        architecture=reference.checkpoint.architecture,
        difference=parity.max_abs_diff / max(1.0, float(abs(reference.results).max())),
        spearman=parity.spearman,
        passes={report.name: report.rewritten for report in reports},
        reasons={report.name: report.reason for report in reports if report.reason},
    )
