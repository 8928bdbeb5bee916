"""What runs a GPU's graph by the operators of a CPU, to check it where there is no GPU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import onnx

from pairwire.server.engine.config import CUDA_BATCH_TOKENS
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.onnx_cuda import OnnxCudaRuntime

from .. import storage
from ..checkpoint.checkpoint import Checkpoint
from ..passes import unpacked


@contextmanager
def checking_runtime(graph: Path, checkpoint: Checkpoint) -> Iterator[OnnxCudaRuntime]:
    """A runtime that runs a packed graph on the CPU: the serving code, with attention of operators that a CPU has."""
    with tempfile.TemporaryDirectory(prefix="pairwire-unpacked-") as folder:
        model = onnx.load(graph)
        unpacked.apply(model)
        file = Path(folder) / graph.name
        storage.save(model, file)
        rules = checkpoint.rules
        options = CudaOptions(
            provider="cpu",
            warm=False,
            longest=rules.max_length,
            most_tokens=CUDA_BATCH_TOKENS,
            pad_token_id=rules.pad_token_id,
        )
        with closing(OnnxCudaRuntime(file, options)) as runtime:
            yield runtime
