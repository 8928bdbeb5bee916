"""The two forms in which a comparison needs one checkpoint: a directory for sentence-transformers, a package for us."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pairwire.export import ExportConfig, export_checkpoint
from pairwire.export.checkpoint.adapter import is_adapter, lay_out
from pairwire.export.checkpoint.checkpoint import detect_kind
from pairwire.export.checkpoint.loading import load_for_tracing
from pairwire.export.checkpoint.source import find_source
from pairwire.server.package import MANIFEST_FILE


def merged_checkpoint(checkpoint: str, work: Path) -> Path:
    """The checkpoint's directory; for a PEFT adapter, a directory below ``work`` with it merged into its base."""
    directory = find_source(checkpoint).directory
    if not is_adapter(directory):
        return directory
    merged = work / "merged"
    if not (merged / "config.json").is_file():
        adapted = lay_out(directory, work / "adapted")
        kind = adapted.kind or detect_kind(adapted.directory)
        model = load_for_tracing(adapted.directory, kind, adapted=adapted)
        model.save_pretrained(str(merged), create_model_card=False)
    return merged


def export_package(checkpoint: str, work: Path, precisions: Sequence[str]) -> Path:
    """A package with these variants below ``work``, made by the real exporter once."""
    package = work / "package"
    if not (package / MANIFEST_FILE).is_file():
        export_checkpoint(ExportConfig(checkpoint=checkpoint, output=package, precisions=tuple(precisions)))
    return package
