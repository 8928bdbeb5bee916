"""Batches of one shape, one thread: their time, and which operators took it."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.batching.buckets import Bucket
from ..runtime.base import Runtime, TokenBatch
from ..runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime, session_options
from ..runtime.ort import ort
from .events import Kernel, fastest, kernels_of_runs
from .products import INT8, Work, executed, operations, work_of
from .timers import Timers


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All nodes of one operator in one run."""

    operator: str
    calls: int
    seconds: float
    operations: int
    """Of matrix products; 0 of anything else."""
    int8: bool
    elements: int
    """That it wrote."""
    bytes: int
    """Activations read and written."""


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """One shape, every row full."""

    bucket: Bucket
    cpu_s: float
    """Of one run with all that the runtime does around it; the fastest."""
    cpu_median_s: float
    wall_median_s: float
    kernels_s: float
    """Sum of all kernels, each at its fastest."""
    useful: int
    """Operations of the tokens in the model as it was trained."""
    executed: int
    """Operations that the kernels' products really took."""
    int8: bool
    """Whether most of them were on 8-bit integers."""
    operators: tuple[OperatorTime, ...]
    """Slowest first."""


class ProfilingRuntime(OnnxCpuRuntime):
    """The runtime that serves, with ONNX Runtime's profiler on. One thread."""

    def __init__(self, graph: Path, options: CpuOptions, folder: Path) -> None:
        """``folder`` is where the profiler writes."""
        super().__init__(graph, options)
        profiled = session_options(options)
        profiled.enable_profiling = True
        profiled.profile_file_prefix = str(folder / "profile")
        self._session = ort.InferenceSession(
            str(graph),
            sess_options=profiled,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(options.disabled_optimizers),
        )

    def finish(self) -> list[list[Kernel]]:
        """The kernels of each run so far."""
        path = Path(self._session.end_profiling())
        return kernels_of_runs(json.loads(path.read_text(encoding="utf-8")))


def profile_shapes(
    graph: Path, options: CpuOptions, buckets: Sequence[Bucket], timers: Timers, *, repeats: int
) -> tuple[Work, list[ShapeProfile]]:
    """What the model is worth a token, and a profile of each shape.

    Each shape is timed without the profiler, which slows a run by some percent, and then profiled.

    Raises:
        Whatever the runtime raises.
    """
    plain = OnnxCpuRuntime(graph, options)
    times = [_times(plain, bucket, timers, repeats) for bucket in buckets]
    plain.close()
    with tempfile.TemporaryDirectory(prefix="pairwire-profile-") as folder:
        profiling = ProfilingRuntime(graph, options, Path(folder))
        for bucket in buckets:
            for _ in range(1 + repeats):
                profiling.run(full_batch(bucket))
        runs = profiling.finish()
        profiling.close()
    starts = range(0, len(runs), 1 + repeats)
    kernels = [fastest(runs[start + 1 : start + 1 + repeats]) for start in starts]  # the first run allocates
    work = work_of(kernels[0], buckets[0].length)
    return work, [
        _profile(bucket, found, work, taken) for bucket, found, taken in zip(buckets, kernels, times, strict=True)
    ]


def full_batch(bucket: Bucket) -> TokenBatch:
    """Full rows of the first token ids; which ones they are matters to no kernel."""
    shape = (bucket.rows, bucket.length)
    ids = np.arange(bucket.tokens, dtype=np.int32).reshape(shape) % _IDS
    return TokenBatch(
        input_ids=ids, token_type_ids=np.zeros(shape, np.int32), lengths=np.full(bucket.rows, bucket.length, np.int32)
    )


_IDS = 100
"""Fewer than any vocabulary has."""


def _times(runtime: Runtime, bucket: Bucket, timers: Timers, repeats: int) -> list[tuple[float, float]]:
    """(CPU, wall) seconds of each repeat."""
    batch = full_batch(bucket)
    runtime.run(batch)
    found = []
    for _ in range(repeats):
        wall, thread = timers.wall(), timers.thread()
        runtime.run(batch)
        found.append((timers.thread() - thread, timers.wall() - wall))
    return found


def _profile(
    bucket: Bucket, kernels: Sequence[Kernel], work: Work, taken: Sequence[tuple[float, float]]
) -> ShapeProfile:
    operators = by_operator(kernels)
    return ShapeProfile(
        bucket=bucket,
        cpu_s=min(cpu for cpu, _ in taken),
        cpu_median_s=statistics.median(cpu for cpu, _ in taken),
        wall_median_s=statistics.median(wall for _, wall in taken),
        kernels_s=sum(kernel.seconds for kernel in kernels),
        useful=work.operations([bucket.length] * bucket.rows),
        executed=executed(kernels),
        int8=2 * sum(found.operations for found in operators if found.int8) > executed(kernels),
        operators=tuple(operators),
    )


def by_operator(kernels: Sequence[Kernel]) -> list[OperatorTime]:
    """Sums by operator, slowest first."""
    groups: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault(kernel.operator, []).append(kernel)
    found = [
        OperatorTime(
            operator=operator,
            calls=len(group),
            seconds=sum(kernel.seconds for kernel in group),
            operations=sum(operations(kernel) for kernel in group),
            int8=operator in INT8,
            elements=sum(int(np.prod(shape)) for kernel in group for shape in kernel.outputs),
            bytes=sum(kernel.bytes for kernel in group),
        )
        for operator, group in groups.items()
    ]
    return sorted(found, key=lambda operator: -operator.seconds)
