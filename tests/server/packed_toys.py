"""A small cross-encoder in every form that a packed runtime is tested with: made once from a real checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from pairwire.server.runtime.base import Float32Array, Int32Array, TokenBatch
from pairwire.server.runtime.cuda_probe import PROVIDER
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.nvidia import count_cards
from pairwire.server.runtime.onnx_cpu import OnnxCpuRuntime
from pairwire.server.runtime.ort import ort
from pairwire.server.runtime.packed import PackedBatch, PackedShapes
from tests import packing

LONGEST = 128
"""Most tokens of a row."""
LAYERS = 2
_VOCABULARY = 150


@dataclass(frozen=True, slots=True)
class PackedToy:
    """A BERT cross-encoder with one label."""

    plain: Path
    """As exported: padded rows, float32."""
    on_cpu: Path
    """Packed, float32, attention in operators that a CPU has."""
    on_gpu: Path
    """Packed, float16: what a package holds."""
    tokenizer: Path


def save(checkpoint: Path, directory: Path) -> PackedToy:
    """Exports a checkpoint; takes some seconds, most of which load torch."""
    from pairwire.export.checkpoint.checkpoint import open_checkpoint
    from pairwire.export.checkpoint.source import find_source
    from pairwire.export.graph import export_graph
    from pairwire.export.packed_variant import make_packed
    from pairwire.export.passes import unpacked
    from pairwire.export.progress import quiet_libraries

    toy = PackedToy(
        *(directory / name for name in ("plain.onnx", "packed-on-cpu.onnx", "cuda-fp16.onnx", "tokenizer.json"))
    )
    source = find_source(str(checkpoint))
    with quiet_libraries():
        opened = open_checkpoint(source, source.directory)
        plain = export_graph(opened, directory)
    packed = packing.copy(plain)
    plain = packing.fuse(packed)  # the same, but with biases that are not all zeros
    onnx.save(plain, toy.plain)
    make_packed(plain, opened, toy.on_gpu)
    packing.pack(packed)
    unpacked.apply(packed)
    onnx.save(packed, toy.on_cpu)
    toy.tokenizer.write_text(opened.tokenizer_json, encoding="utf-8")
    return toy


def rows(lengths: Sequence[int], *, seed: int = 0) -> PackedBatch:
    """Random rows of these lengths, the second half of each of the second type."""
    rng = np.random.default_rng(seed)
    types = [np.arange(length) >= length // 2 for length in lengths]
    return PackedBatch(
        input_ids=rng.integers(5, _VOCABULARY, sum(lengths)).astype(np.int32),
        token_type_ids=np.concatenate(types).astype(np.int32),
        lengths=np.array(lengths, np.int32),
    )


def split(batch: PackedBatch) -> list[PackedBatch]:
    """Each row alone."""
    ends = np.cumsum(batch.lengths).tolist()
    return [
        PackedBatch(batch.input_ids[begin:end], batch.token_type_ids[begin:end], np.array([end - begin], np.int32))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def padded(batch: PackedBatch) -> TokenBatch:
    """The same rows, padded with zeros."""
    inside = np.arange(int(batch.lengths.max())) < batch.lengths[:, None]

    def spread(values: Int32Array) -> Int32Array:
        result = np.zeros(inside.shape, np.int32)
        result[inside] = values
        return result

    return TokenBatch(spread(batch.input_ids), spread(batch.token_type_ids), batch.lengths)


def expected(toy: PackedToy, batch: PackedBatch) -> Float32Array:
    """[rows, 1] what the plain graph makes of the rows."""
    runtime = OnnxCpuRuntime(toy.plain)
    try:
        return runtime.run(padded(batch))
    finally:
        runtime.close()


def shapes(options: CudaOptions) -> PackedShapes:
    """What a runtime with these options runs."""
    return PackedShapes(longest=options.longest, most_tokens=options.most_tokens)


def has_gpu() -> bool:
    """Whether there is a device and a wheel for it."""
    return PROVIDER in ort.get_available_providers() and bool(count_cards())
