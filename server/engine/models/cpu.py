"""Opens a variant on the CPU."""

from __future__ import annotations

from pathlib import Path

from pairwire.v1 import manifest_pb2

from ...clock import Clock, SystemClock, ThreadClock
from ..config import EngineConfig
from ..text.encoder import TextEncoder
from ..text.vocabulary import embedding_rows
from .building import build_model
from .model import Model


def open_on_cpu(
    manifest: manifest_pb2.ModelManifest,
    variant: manifest_pb2.Variant,
    graph: Path,
    encoder: TextEncoder,
    config: EngineConfig,
    timer: Clock | None,
) -> Model:
    """A model whose costs are known.

    ``timer`` is the clock that costs are measured on; None means the thread's CPU time where a run has one thread.

    Raises:
        Whatever the runtime raises.
    """
    from ...runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime

    options = CpuOptions(
        intra_op_threads=config.intra_op_threads, disabled_optimizers=tuple(variant.disabled_optimizers)
    )
    if timer is None:
        timer = ThreadClock() if config.intra_op_threads == 1 else SystemClock()
    runtime = OnnxCpuRuntime(graph, options)
    if not manifest.vocab_size:  # an older package does not say
        rows = embedding_rows(lambda id: runtime.run(encoder.blank(1, 1, id)), encoder.vocabulary.rows)
        encoder = encoder.with_rows(rows)
    return build_model(manifest, encoder, runtime, variant=variant.name, config=config, clock=timer)
