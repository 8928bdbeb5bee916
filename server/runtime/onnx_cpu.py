"""ONNX Runtime's CPU provider: one session, shared by all worker threads."""

from __future__ import annotations

import functools
import logging
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..freed_memory import return_freed_memory
from .base import Float32Array, RuntimeInfo, TokenBatch
from .ort import ort
from .processor import int8_saturates, processor_flags, processor_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuOptions:
    """How a CPU session is built."""

    intra_op_threads: int = 1
    """Threads of one run. One is best where several workers share a session: small batches stay in a core's cache."""
    disabled_optimizers: Sequence[str] = ()
    """ONNX Runtime optimizers to leave out, as the package's variant lists them."""


class OnnxCpuRuntime:
    """Runs a graph on the CPU provider. ``run`` is thread-safe: ONNX Runtime releases the GIL and shares no state."""

    def __init__(self, graph: Path, options: CpuOptions | None = None) -> None:
        options = options or CpuOptions()
        self._session = ort.InferenceSession(
            str(graph),
            sess_options=session_options(options),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(options.disabled_optimizers),
        )
        # The C library keeps the holes that a parsed and optimised graph leaves, some 15 MiB for one of 24 MiB, and
        # batches do not fill them.
        return_freed_memory()
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._running: dict[int, ort.RunOptions] = {}  # by thread
        self._info = RuntimeInfo(
            provider="CPUExecutionProvider",
            device=processor_name(),
            version=ort.__version__,
            intra_op_threads=options.intra_op_threads,
        )

    @property
    def info(self) -> RuntimeInfo:
        """What runs the graph."""
        return self._info

    def run(self, batch: TokenBatch) -> Float32Array:
        """[rows, outputs] float32."""
        feeds = {name: feed(name, batch) for name in self._inputs}
        thread, options = threading.get_ident(), ort.RunOptions()
        options.log_severity_level = 4  # what fails is raised, and reported in our own log
        self._running[thread] = options
        try:
            (output,) = self._session.run([self._output], feeds, options)
        finally:
            del self._running[thread]
        return np.asarray(output, dtype=np.float32)

    def interrupt(self, thread: int) -> None:
        """Has the run of that thread fail after the operator that it is in; inside a loop, after one of its body."""
        options = self._running.get(thread)
        if options is not None:
            options.terminate = True

    def close(self) -> None:
        """Drops the session."""
        del self._session


def feed(name: str, batch: TokenBatch) -> np.ndarray:
    """The input of a graph that has this name: int64, [rows, length] or [rows].

    Raises:
        ValueError: no input of ours.
    """
    if name == "input_ids":
        return batch.input_ids.astype(np.int64)
    if name == "token_type_ids":
        return batch.token_type_ids.astype(np.int64)
    if name == "attention_mask":
        return (np.arange(batch.length, dtype=np.int32) < batch.lengths[:, None]).astype(np.int64)
    if name == "prompt_lengths":
        return batch.prompt_lengths.astype(np.int64)
    raise ValueError(f"the graph asks for an input {name!r} that Pairwire does not know")


def session_options(options: CpuOptions) -> ort.SessionOptions:
    """What every session on the CPU provider is built with."""
    built = ort.SessionOptions()
    built.intra_op_num_threads = options.intra_op_threads
    built.inter_op_num_threads = 1
    built.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Workers, tokenizers and the event loop share the cores: a thread that spins takes one away from them.
    built.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Shapes change from run to run: a memory plan for each of them is never cheaper to run, and all of them are kept.
    built.enable_mem_pattern = False
    if _share_arena():
        built.add_session_config_entry("session.use_env_allocators", "1")
    built.log_severity_level = 3
    if int8_saturates(platform.machine(), processor_flags()):
        # Exact but slower kernels. Not for everyone: where products do not saturate they are half as fast for nothing.
        built.add_session_config_entry("session.x64quantprecision", "1")
    return built


_FIRST_REGION_BYTES = 256 << 20


@functools.cache
def _share_arena() -> bool:
    """Makes, once a process, the arena that all sessions take their activations from; False where that cannot be done.

    With an arena each, every model would keep the memory of its own largest batches. Weights are not in it: they are
    freed with their session. It begins with one large region, of which only touched pages take memory: free pieces of
    several small regions never join, and a tensor that fits into none of them makes memory grow late.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"initial_chunk_size_bytes": _FIRST_REGION_BYTES}))
    except Exception as error:  # onnxruntime raises bare RuntimeErrors and types of its own; each session then has one
        logger.info("models do not share memory: %s", error)
        return False
    return True
