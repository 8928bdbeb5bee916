"""The exporter: checkpoint in, model package out.

    cli.py             `pairwire export`                exporter.py        the whole way
    checkpoint/        what is this checkpoint?         graph.py           checkpoint -> plain ONNX
    passes/            exact rewrites of it             recipes.py         which of them make the fastest variant
    int8/              int8 variants                    packed_variant.py  the float16 variant of a GPU
    parity/            variants against sentence-transformers
    variant.py         a graph that was made, and what the manifest says of it
    figures.py         what a comparison found          vector_ranges.py   how large a vector's numbers get
    texts.py           built-in and user's texts        package.py         all files or none
    storage.py         graphs on disk                   progress.py        what is being done, step by step
    vocabulary.py      tokens without an embedding      few_layers.py      a graph to measure recipes with
    memory.py          does it fit?                 toolset.py         which libraries are installed
    query_table.py     queries without a model
    config.py          every option, defined once       errors.py          the tree of errors
    demo/              the demo checkpoint of `make demo`

Importing this package loads neither torch nor transformers; `export_checkpoint` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pairwire.server.engine.kinds import ModelKind

from .config import ExportConfig, Precision
from .errors import (
    CheckpointNotFound,
    CheckpointUnsupported,
    DataInvalid,
    ExportError,
    MemoryShort,
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
    "MemoryShort",
    "ModelKind",
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
