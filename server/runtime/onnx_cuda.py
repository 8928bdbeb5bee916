"""ONNX Runtime's CUDA provider: packed batches of fixed shapes, each captured as a CUDA graph.

One thread owns everything that belongs to the device: the session, a binding and a buffer for each shape, and the
graphs, which ONNX Runtime keeps by thread. ``run`` may be called by any thread: it puts the batch into its shape
there, and what is left for the owner is to upload one buffer, replay one graph and download the result. So while one
batch runs the next is being prepared, and nobody else ever touches the device: a foreign allocation would break a
capture.

Every shape is run and captured before the constructor returns. A graph is replayed for exactly the binding that it was
captured with: binding, shape and the number that ONNX Runtime knows the graph by are one object, so that no number can
meet another shape (ONNX Runtime would not notice, and answer with stale memory). From the first shape that cannot be
captured on, shapes are run operator by operator, with a line in the log and the reason in ``info``.

With ``provider="cpu"`` the same code runs without a GPU, on a graph whose attention a CPU has
(`pairwire.export.passes.unpacked`), and nothing is captured.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from .base import CudaInfo, DeviceLost, Float32Array, Int32Array, RuntimeInfo, TokenBatch
from .cuda_session import CudaOptions, open_session
from .ort import ort
from .packed import CUMULATIVE_LENGTHS, POSITION_IDS, TOKEN_OFFSET, PackedBatch, PackedShape, PackedShapes

logger = logging.getLogger(__name__)

_RUNS_TO_CAPTURE = 3
"""ONNX Runtime allocates in the first two runs of a graph and captures the third."""
_TIMED = 3
_UNCAPTURED = -1
"""The number of a graph that is never captured."""
_ITEM_BYTES = 4

Result = TypeVar("Result")
_Jobs: TypeAlias = "queue.SimpleQueue[tuple[Callable[[], object], Future[object]] | None]"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """What is known of the device from outside ONNX Runtime, for ``info``."""

    name: str = "unknown"
    driver: str = ""
    cudnn: str = ""
    attention_kernels: tuple[str, ...] = ()
    used_bytes: Callable[[], int] = lambda: 0
    """Memory in use on the device now."""


class OnnxCudaRuntime:
    """Runs a packed graph. ``run`` is thread-safe."""

    def __init__(
        self,
        graph: Path,
        options: CudaOptions,
        *,
        facts: DeviceFacts | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Loads the graph, runs and captures every shape. Takes some milliseconds a shape.

        ``now`` is a clock in seconds, for ``seconds``.

        Raises:
            RuntimeMissing: the provider cannot be had; it is never replaced by another.
            Whatever ONNX Runtime raises of the graph.
        """
        self.shapes = PackedShapes(longest=options.longest, most_tokens=options.most_tokens)
        self._options = options
        self._jobs: _Jobs = queue.SimpleQueue()
        self._owned: list[_Device] = []
        self._thread = threading.Thread(
            target=_serve, args=(self._jobs, self._owned), name=f"pairwire-cuda-{options.device_id}", daemon=True
        )
        self._thread.start()
        # A process that ends with the thread waiting in ONNX Runtime's or the driver's hands is aborted.
        self._end = weakref.finalize(self, _end, self._jobs, self._thread)
        facts = facts or DeviceFacts()
        shapes = self.shapes
        try:
            self._device = self._call(lambda: _Device(graph, options, shapes, facts, now))
            self._owned.append(self._device)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> RuntimeInfo:
        """What runs the graph."""
        return self._device.info

    def run(self, batch: TokenBatch) -> Float32Array:
        """As ``run_packed``, of padded rows."""
        return self.run_packed(PackedBatch.of(batch))

    def run_packed(self, packed: PackedBatch) -> Float32Array:
        """[rows, outputs] float32.

        Raises:
            ValueError: the batch is larger than the largest shape.
            DeviceLost: the device cannot be used again by this process.
            Whatever ONNX Runtime raises.
        """
        shape = self.shapes.fit(len(packed.input_ids), packed.rows, int(packed.lengths.max()))
        buffer = shape.stage(packed, self._options.pad_token_id)
        offsets = shape.token_offset(shape.row_lengths(packed.lengths)) if self._device.reads_offsets else None
        first = shape.first_row(packed)
        output = self._call(lambda: self._device.run(shape, buffer, offsets))
        return np.ascontiguousarray(output[first : first + packed.rows], dtype=np.float32)

    def interrupt(self, thread: int) -> None:
        """Nothing: what was given to the device cannot be taken back."""

    def seconds(self) -> dict[PackedShape, float]:
        """What a run of each shape took, upload and download included: the fastest of a few."""
        return dict(self._device.seconds)

    def close(self) -> None:
        """Ends the thread and frees the device's memory. Idempotent."""
        self._end()

    def _call(self, job: Callable[[], Result]) -> Result:
        if not self._end.alive:
            raise RuntimeError("the runtime has been closed")
        future: Future[Result] = Future()
        self._jobs.put((job, future))  # type: ignore[arg-type]  # one queue for jobs of all results
        return future.result()


def _serve(jobs: _Jobs, owned: list[_Device]) -> None:
    """The owner's loop. It knows no runtime, so that one that is dropped can end it. A job that fails tells its caller.

    ``owned`` is the device, once there is one.
    """
    while (item := jobs.get()) is not None:
        job, future = item
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)
        del item, job, future  # the last reference to a buffer must not wait for the next batch
    while owned:
        owned.pop().close()


def _end(jobs: _Jobs, thread: threading.Thread) -> None:
    jobs.put(None)
    thread.join()


@dataclass(frozen=True, eq=False, slots=True)
class _Bound:
    """A shape, the memory that it is bound to, and the graph that was captured with just these."""

    shape: PackedShape
    buffer: ort.OrtValue
    output: ort.OrtValue
    binding: ort.IOBinding
    options: ort.RunOptions
    captured: bool


def _lost(bound: _Bound) -> bool:
    """After some errors CUDA refuses everything until the process ends: even to copy what is there."""
    try:
        bound.output.numpy()
    except Exception:
        return True
    return False


class _Device:
    """All that belongs to the device. Used by one thread only."""

    def __init__(
        self,
        graph: Path,
        options: CudaOptions,
        shapes: PackedShapes,
        facts: DeviceFacts,
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._now = now
        used = facts.used_bytes()
        self._session = open_session(graph, options)
        self._inputs = {node.name for node in self._session.get_inputs()}
        node = self._session.get_outputs()[0]
        self._output, self._outputs = node.name, int(node.shape[1])
        self._failure = ""
        self.seconds: dict[PackedShape, float] = {}
        every = list(shapes)
        self._offsets = self._empty(max(shape.rows * shape.length for shape in every))
        self.reads_offsets = True
        self.reads_offsets = self._look_whether_offsets_are_read(shapes)
        self._bound: dict[PackedShape, _Bound] = {}
        if options.warm:
            self._bound = {shape: self._capture(shape, number) for number, shape in enumerate(every, start=1)}
        self.info = self._describe(facts, facts.used_bytes() - used)

    def run(self, shape: PackedShape, buffer: Int32Array, offsets: Int32Array | None) -> Float32Array:
        """[shape.rows, outputs] float32, the host's own."""
        if shape not in self._bound:
            self._bound[shape] = self._bind(shape, _UNCAPTURED)
        bound = self._bound[shape]
        try:
            return self._run(bound, buffer, offsets)
        except Exception as error:  # onnxruntime has exception types of its own, without a common base
            if _lost(bound):
                raise DeviceLost(f"device {self._options.device_id}: {str(error).splitlines()[0][:300]}") from error
            raise

    def close(self) -> None:
        """Drops bindings before the session that they belong to."""
        self._bound.clear()
        del self._session

    def _run(self, bound: _Bound, buffer: Int32Array, offsets: Int32Array | None) -> Float32Array:
        bound.buffer.update_inplace(buffer)
        if offsets is not None:
            self._upload_offsets(offsets)
        self._session.run_with_iobinding(bound.binding, bound.options)
        return np.array(bound.output.numpy())

    def _bind(self, shape: PackedShape, number: int) -> _Bound:
        buffer = self._empty(shape.size)
        output = ort.OrtValue.ortvalue_from_shape_and_type(
            (shape.rows, self._outputs), np.float32, self._options.provider, self._options.device_id
        )
        binding = self._session.io_binding()
        ids, types, positions, cumulative = shape.begins()
        parts = {
            "input_ids": (ids, (shape.tokens,)),
            "token_type_ids": (types, (shape.tokens,)),
            POSITION_IDS: (positions, (shape.tokens,)),
            CUMULATIVE_LENGTHS: (cumulative, (shape.rows + 1,)),
        }
        for name, (begin, dims) in parts.items():
            if name in self._inputs:
                self._bind_input(binding, name, dims, buffer.data_ptr() + begin * _ITEM_BYTES)
        if TOKEN_OFFSET in self._inputs:
            self._bind_input(binding, TOKEN_OFFSET, (shape.rows, shape.length), self._offsets.data_ptr())
        binding.bind_ortvalue_output(self._output, output)
        options = ort.RunOptions()
        if self._options.provider == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(number))
        return _Bound(shape, buffer, output, binding, options, captured=number != _UNCAPTURED)

    def _bind_input(self, binding: ort.IOBinding, name: str, dims: tuple[int, ...], pointer: int) -> None:
        binding.bind_input(name, self._options.provider, self._options.device_id, np.int32, dims, pointer)

    def _capture(self, shape: PackedShape, number: int) -> _Bound:
        """A shape that has been run, and captured where that can be done."""
        capture = self._options.capture and self._options.provider == "cuda" and not self._failure
        bound = self._bind(shape, number if capture else _UNCAPTURED)
        try:
            self._warm(bound)
        except Exception as error:  # onnxruntime has exception types of its own, without a common base
            if not capture:
                raise
            self._failure = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            logger.warning("a CUDA graph of %s cannot be captured (%s); it runs by operators", shape, self._failure)
            bound = self._bind(shape, _UNCAPTURED)
            self._warm(bound)
        return bound

    def _warm(self, bound: _Bound) -> None:
        """Runs a batch of full rows as often as a capture takes, and then some more for the time that it takes."""
        shape = bound.shape
        rows, left = divmod(shape.tokens, shape.length)
        lengths = np.array([shape.length] * rows + [left] * bool(left), dtype=np.int32)
        ids = np.full(shape.tokens, self._options.pad_token_id, dtype=np.int32)
        buffer = shape.stage(PackedBatch(ids, np.zeros_like(ids), lengths))
        offsets = shape.token_offset(shape.row_lengths(lengths)) if self.reads_offsets else None
        best = float("inf")
        for at in range(_RUNS_TO_CAPTURE + _TIMED):
            started = self._now()
            self._run(bound, buffer, offsets)
            if at >= _RUNS_TO_CAPTURE:
                best = min(best, self._now() - started)
        self.seconds[shape] = best

    def _look_whether_offsets_are_read(self, shapes: PackedShapes) -> bool:
        """Flash attention reads cumulative_lengths only; then token_offset, the largest input, need not be uploaded."""
        if TOKEN_OFFSET not in self._inputs:
            return False
        lengths = np.minimum([5, 3, 9], min(shapes.lengths[-1], shapes.tokens[-1] // 3)).astype(np.int32)
        if lengths.min() < 2 or shapes.most_rows < len(lengths):
            return True  # too few tokens to tell
        shape = shapes.fit(int(lengths.sum()), len(lengths), int(lengths.max()))
        bound = self._bind(shape, _UNCAPTURED)
        ids = np.arange(2, 2 + int(lengths.sum()), dtype=np.int32)
        batch = PackedBatch(ids, np.zeros_like(ids), lengths)
        buffer, right = shape.stage(batch), shape.token_offset(shape.row_lengths(lengths))
        at = slice(shape.first_row(batch), shape.first_row(batch) + len(lengths))
        with_right = self._run(bound, buffer, right)[at]
        with_wrong = self._run(bound, buffer, right[::-1, ::-1].copy())[at]
        return not np.array_equal(with_right, with_wrong)

    def _upload_offsets(self, offsets: Int32Array) -> None:
        whole = np.zeros(self._offsets.shape(), dtype=np.int32)
        whole[: offsets.size] = offsets.reshape(-1)
        self._offsets.update_inplace(whole)

    def _empty(self, size: int) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(
            (size,), np.int32, self._options.provider, self._options.device_id
        )

    def _describe(self, facts: DeviceFacts, memory_bytes: int) -> RuntimeInfo:
        options = self._options
        captured = sum(bound.captured for bound in self._bound.values())
        reason = self._failure
        if options.provider == "cpu":
            reason = "a CPU captures no graphs"
        elif not options.capture:
            reason = "turned off by cuda_graphs"
        return RuntimeInfo(
            provider=self._session.get_providers()[0],
            device=facts.name,
            version=ort.__version__,
            intra_op_threads=1,
            cuda=CudaInfo(
                device_id=options.device_id,
                driver=facts.driver,
                cuda=str(getattr(ort, "cuda_version", "")),
                cudnn=facts.cudnn,
                attention_kernels=facts.attention_kernels,
                graphs=captured,
                eager=len(self._bound) - captured,
                eager_reason=reason if captured < len(self._bound) else "",
                memory_bytes=memory_bytes,
            ),
        )
