"""A runtime without a graph: computes by a given function, fails and blocks on request, and remembers what it ran."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import numpy as np

from .base import Float32Array, RuntimeInfo, TokenBatch


class FakeRuntime:
    """Runs ``compute`` on every batch. ``run`` is thread-safe; ``batches`` is in the order in which the runs began."""

    def __init__(
        self,
        compute: Callable[[TokenBatch], Float32Array] | None = None,
        *,
        outputs: int = 1,
        fail_on: Collection[int] = (),
        gate: threading.Event | None = None,
        on_run: Callable[[TokenBatch], None] | None = None,
    ) -> None:
        """Without ``compute``, every output of a row is the sum of its token ids, so that no two texts look alike.

        Args:
            compute: TokenBatch -> float32 [rows, outputs].
            outputs: numbers of a row, where ``compute`` is not given.
            fail_on: numbers of the calls, from 0, that raise RuntimeError.
            gate: every run waits until it is set.
            on_run: called with each batch before it is computed, e.g. to move a simulated clock.
        """
        self.batches: list[TokenBatch] = []
        self.closed = False
        self.failing = set(fail_on)
        """Numbers of the calls that raise; may be changed at any time."""
        self.broken = False
        """While true, every call raises."""
        self.obeys = False
        """Whether a run that waits at the gate can be interrupted."""
        self.started = threading.Semaphore(0)
        """Released once by each run as it begins: lets a test wait until a worker is inside."""
        self._compute = compute or (lambda batch: row_sums(batch, outputs))
        self._gate = gate
        self._on_run = on_run
        self._interrupted: set[int] = set()
        self._lock = threading.Lock()

    @property
    def info(self) -> RuntimeInfo:
        """What it pretends to be."""
        return RuntimeInfo(provider="FakeExecutionProvider", device="none", version="0", intra_op_threads=1)

    def run(self, batch: TokenBatch) -> Float32Array:
        """[rows, outputs] float32.

        Raises:
            RuntimeError: this call was set to fail, or was interrupted.
        """
        with self._lock:
            number = len(self.batches)
            self.batches.append(batch)
        self.started.release()
        if self._gate is not None:
            self._gate.wait()
        if threading.get_ident() in self._interrupted:
            self._interrupted.discard(threading.get_ident())
            raise RuntimeError(f"call {number} was asked to end")
        if self._on_run is not None:
            self._on_run(batch)
        if self.broken or number in self.failing:
            raise RuntimeError(f"call {number} was set to fail")
        return self._compute(batch)

    def interrupt(self, thread: int) -> None:
        """Opens the gate, and has the run of that thread raise; nothing where it was not set to obey."""
        if self.obeys and self._gate is not None:
            self._interrupted.add(thread)
            self._gate.set()

    def close(self) -> None:
        """Remembers that it was closed."""
        self.closed = True


def row_sums(batch: TokenBatch, outputs: int = 1) -> Float32Array:
    """[rows, outputs] float32: the sum of each row's token ids, padding left out."""
    inside = np.arange(batch.length, dtype=np.int32) < batch.lengths[:, None]
    sums = np.where(inside, batch.input_ids, 0).sum(axis=1, dtype=np.float32)
    return np.repeat(sums[:, None], outputs, axis=1)
