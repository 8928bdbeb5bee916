"""The seam between the engine and what computes: one fixed shape in, one float matrix out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
UInt32Array = npt.NDArray[np.uint32]

_NO_PROMPTS: Int32Array = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of one fixed shape, right-padded. The runtime only reads it."""

    input_ids: Int32Array
    """[rows, length] token ids; beyond a row's length the pad token."""
    token_type_ids: Int32Array
    """[rows, length]; all pad type where the model has no token types."""
    lengths: Int32Array
    """[rows] tokens of each row, special tokens included; 0 marks a row that only fills the shape."""
    prompt_lengths: Int32Array = field(default_factory=lambda: _NO_PROMPTS)
    """[rows] tokens at the beginning of each row that pooling leaves out; all 0 unless they are given."""

    def __post_init__(self) -> None:
        if self.prompt_lengths is _NO_PROMPTS:
            object.__setattr__(self, "prompt_lengths", np.zeros(len(self.lengths), np.int32))

    @property
    def rows(self) -> int:
        """Rows of the shape."""
        return int(self.input_ids.shape[0])

    @property
    def length(self) -> int:
        """Tokens of the shape's rows, padding included."""
        return int(self.input_ids.shape[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaInfo:
    """What a GPU runtime found and made when it started."""

    device_id: int
    driver: str
    """Version of the driver; empty where it cannot be asked."""
    cuda: str
    """Version of CUDA that ONNX Runtime was built for."""
    cudnn: str
    """Version of cuDNN; empty where there is none. Packed attention does without."""
    attention_kernels: tuple[str, ...]
    """The kernel of each attention, in the order of the layers; empty where ONNX Runtime does not tell."""
    graphs: int
    """Shapes that are replayed as captured CUDA graphs."""
    eager: int
    """Shapes that are run operator by operator."""
    eager_reason: str
    """Why they are; empty where there are none."""
    memory_bytes: int
    """Memory of the device that loading and capturing took."""


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
    cuda: CudaInfo | None = None
    """On an NVIDIA GPU."""


class Runtime(Protocol):
    """Runs a graph. ``run`` may be called by several threads at once; everything else by one."""

    @property
    def info(self) -> RuntimeInfo:
        """What runs the graph."""
        ...

    def run(self, batch: TokenBatch) -> Float32Array:
        """[rows, outputs] float32, a fresh array that the caller owns. Raises whatever the backend raises."""
        ...

    def interrupt(self, thread: int) -> None:
        """Asks the run of that thread (``threading.get_ident``), if there is one, to end early by raising.

        May be called by any thread. A backend that cannot be asked does nothing.
        """
        ...

    def close(self) -> None:
        """Frees the graph; no ``run`` may be going on or follow."""
        ...


class DeviceLost(BaseException):
    """The device answers nothing any more, and will not within this process. No Exception: nobody may go on from it."""
