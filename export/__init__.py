"""The exporter: checkpoint in, model package out.

    source.py      CHECKPOINT -> a directory (local, hub, adapter's base)      adapter.py   merges a PEFT adapter
    checkpoint.py  what is this checkpoint? kind, labels, activation, limits, prompts, tokenizer
    graph.py       checkpoint -> plain ONNX                                     passes/      exact rewrites of it
    quantize.py    int8 variants                                                calibrate.py what activations look like
    coding.py      how a tensor becomes uint8                                   rounding.py  how weights become int8
    parity.py      every variant against sentence-transformers                  report.py    parity.json, PARITY.md
    package.py     all files or none                                            exporter.py  the whole way
    texts.py       built-in and user's texts                                    cli.py       `pairwire export`

Importing this package loads neither torch nor transformers; `export_checkpoint` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import ExportConfig, Kind, Precision
from .errors import (
    CheckpointNotFound,
    CheckpointUnsupported,
    DataInvalid,
    ExportError,
    OutputInvalid,
    ParityFailed,
)

if TYPE_CHECKING:
    from .exporter import Exported, export_checkpoint

__all__ = [
    "CheckpointNotFound",
    "CheckpointUnsupported",
    "DataInvalid",
    "ExportConfig",
    "ExportError",
    "Exported",
    "Kind",
    "OutputInvalid",
    "ParityFailed",
    "Precision",
    "export_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in ("Exported", "export_checkpoint"):
        from . import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
