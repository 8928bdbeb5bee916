"""The seam between the engine and what computes: one fixed shape in, one float matrix out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of one fixed shape, right-padded. The runtime only reads it."""

    input_ids: Int32Array
    """[rows, length] token ids; beyond a row's length the pad token."""
    token_type_ids: Int32Array
    """[rows, length]; all pad type where the model has no token types."""
    lengths: Int32Array
    """[rows] tokens of each row, special tokens included; 0 marks a row that only fills the shape."""

    @property
    def rows(self) -> int:
        """Rows of the shape."""
        return int(self.input_ids.shape[0])

    @property
    def length(self) -> int:
        """Tokens of the shape's rows, padding included."""
        return int(self.input_ids.shape[1])


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What runs the graph; for the start-up table, GetModel and the key of the cost table."""

    provider: str
    """ONNX Runtime's name, e.g. ``CPUExecutionProvider``."""
    device: str
    """E.g. the processor's name."""
    version: str
    """ONNX Runtime's version."""
    intra_op_threads: int
    """Threads of one run."""


class Runtime(Protocol):
    """Runs a graph. ``run`` may be called by several threads at once; everything else by one."""

    @property
    def info(self) -> RuntimeInfo:
        """What runs the graph."""
        ...

    def run(self, batch: TokenBatch) -> Float32Array:
        """[rows, outputs] float32, a fresh array that the caller owns. Raises whatever the backend raises."""
        ...

    def close(self) -> None:
        """Frees the graph; no ``run`` may be going on or follow."""
        ...
