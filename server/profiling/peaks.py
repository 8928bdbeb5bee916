"""The fastest matrix products that ONNX Runtime's own kernels reach on this processor: what a model can hope for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..runtime.onnx_cpu import CpuOptions, session_options
from ..runtime.ort import ort
from .timers import Timers

ROWS = 512
"""As many tokens as a batch has."""
SHAPES = ((384, 1536), (1536, 384), (768, 3072))
"""[inputs, outputs] of feed-forward layers of small and base models; the fastest is the peak."""

Product = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second."""

    one_thread: float
    """A second of CPU time."""
    all_cores: float
    """All at once, each on a thread of its own: the sum of what each did in a second of its CPU time."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of both precisions."""

    int8: Peak
    fp32: Peak
    cores: int
    """At once."""


def measure_peaks(timers: Timers, *, cores: int, seconds: float = 0.5) -> Peaks:
    """Runs products for so long for each precision and number of threads.

    Raises:
        ModuleNotFoundError: the package ``onnx``, which builds the graphs, is not installed.
    """
    peaks = {}
    for name, integers in (("int8", True), ("fp32", False)):
        products = [(2 * ROWS * k * n, _product(k, n, integers=integers)) for k, n in SHAPES]
        rates = [
            (_rate(count, product, timers, seconds / len(products)), at) for at, (count, product) in enumerate(products)
        ]
        best, at = max(rates)
        together = _together(*products[at], timers, cores, seconds) if cores > 1 else best
        peaks[name] = Peak(one_thread=best, all_cores=together)
    return Peaks(int8=peaks["int8"], fp32=peaks["fp32"], cores=cores)


def _rate(operations: int, product: Product, timers: Timers, seconds: float) -> float:
    """The fastest of all products within that time: others on the machine only ever add."""
    product()
    best, end = float("inf"), timers.wall() + seconds
    while timers.wall() < end or best == float("inf"):
        began = timers.thread()
        product()
        best = min(best, timers.thread() - began)
    return operations / max(best, 1e-9)


def _together(operations: int, product: Product, timers: Timers, cores: int, seconds: float) -> float:
    """Each thread's median rate, added up: here what the threads take from each other shall count."""
    start = threading.Barrier(cores)
    rates = [0.0] * cores

    def work(number: int) -> None:
        product()
        taken: list[float] = []
        start.wait()
        end = timers.wall() + seconds
        while timers.wall() < end or not taken:
            began = timers.thread()
            product()
            taken.append(timers.thread() - began)
        rates[number] = operations / max(float(np.median(taken)), 1e-9)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _product(inputs: int, outputs: int, *, integers: bool) -> Product:
    """One product [ROWS, inputs] x [inputs, outputs] of a session of its own, on the thread that calls."""
    # Not needed to serve, and therefore no dependency of a server.
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    if integers:
        node = helper.make_node("MatMulInteger", ["a", "w", "zero"], ["y"])
        weights = random.integers(-127, 128, (inputs, outputs)).astype(np.int8)
        feed: np.ndarray = random.integers(0, 256, (ROWS, inputs)).astype(np.uint8)
        constants = {"w": weights, "zero": np.asarray(120, np.uint8)}
        types = (TensorProto.UINT8, TensorProto.INT32)
    else:
        node = helper.make_node("MatMul", ["a", "w"], ["y"])
        feed = random.normal(size=(ROWS, inputs)).astype(np.float32)
        constants = {"w": random.normal(size=(inputs, outputs)).astype(np.float32)}
        types = (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("a", types[0], [ROWS, inputs])],
        [helper.make_tensor_value_info("y", types[1], [ROWS, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(
        model.SerializeToString(), session_options(CpuOptions()), providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": feed})
