"""A real graph, packed, gives what it gives with padding: on the CPU here, as captured graphs where there is a GPU."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from pairwire.server.errors import RuntimeMissing
from pairwire.server.runtime.base import Float32Array, TokenBatch
from pairwire.server.runtime.cuda_probe import PROVIDER
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.onnx_cpu import OnnxCpuRuntime
from pairwire.server.runtime.onnx_cuda import DeviceFacts, OnnxCudaRuntime
from pairwire.server.runtime.ort import ort
from pairwire.server.runtime.packed import PackedBatch, is_packed
from tests import packing
from tests.server import packed_toys
from tests.server.packed_toys import LONGEST, PackedToy

CPU = CudaOptions(provider="cpu", longest=LONGEST, most_tokens=256)
LENGTHS = (7, 128, 2, 33, 1, 64)
LOOSE = 0.02
"""Of float16."""


@contextmanager
def running(
    toy: PackedToy,
    options: CudaOptions = CPU,
    *,
    facts: DeviceFacts | None = None,
    now: Callable[[], float] = lambda: 0.0,
) -> Iterator[OnnxCudaRuntime]:
    graph = toy.on_cpu if options.provider == "cpu" else toy.on_gpu
    runtime = OnnxCudaRuntime(graph, options, facts=facts, now=now)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture(scope="module")
def warm(packed_toy: PackedToy) -> Iterator[OnnxCudaRuntime]:
    """On the CPU, with every shape run before."""
    with running(packed_toy) as runtime:
        yield runtime


def owners(number: int = 0) -> list[str]:
    """Threads that own a device."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"pairwire-cuda-{number}"]


def test_rows_among_strangers_have_the_scores_of_the_plain_graph(warm: OnnxCudaRuntime, packed_toy: PackedToy) -> None:
    batch = packed_toys.rows(LENGTHS)
    scores = warm.run_packed(batch)
    assert (scores.shape, scores.dtype) == ((len(LENGTHS), 1), np.float32)
    assert len(set(scores[:, 0].round(3).tolist())) == len(LENGTHS)  # rows that could be mistaken
    assert packing.close(scores, packed_toys.expected(packed_toy, batch))


def test_rows_alone_have_the_scores_of_the_plain_graph(warm: OnnxCudaRuntime, packed_toy: PackedToy) -> None:
    batch = packed_toys.rows(LENGTHS)
    alone = np.concatenate([warm.run_packed(row) for row in packed_toys.split(batch)])
    assert packing.close(alone, packed_toys.expected(packed_toy, batch))


@pytest.mark.parametrize(
    "lengths", [(128, 128), (1,) * 16, (64,), (63,), (65,), (128,)], ids=["full", "most rows", "64", "63", "65", "128"]
)
def test_batches_at_the_edges_of_shapes_are_right(
    lengths: tuple[int, ...], warm: OnnxCudaRuntime, packed_toy: PackedToy
) -> None:
    batch = packed_toys.rows(lengths, seed=1)
    assert packing.close(warm.run_packed(batch), packed_toys.expected(packed_toy, batch))


def test_what_a_shape_was_used_for_before_does_not_matter(warm: OnnxCudaRuntime) -> None:
    first = packed_toys.rows((40, 20))
    before = warm.run_packed(first)
    warm.run_packed(packed_toys.rows((1, 1, 1, 50), seed=2))
    np.testing.assert_array_equal(warm.run_packed(first), before)


def test_padded_rows_are_packed(warm: OnnxCudaRuntime) -> None:
    batch = packed_toys.rows(LENGTHS)
    np.testing.assert_array_equal(warm.run(packed_toys.padded(batch)), warm.run_packed(batch))


def test_rows_that_only_fill_a_padded_batch_have_results_too(warm: OnnxCudaRuntime) -> None:
    ids = np.full((2, 8), 9, np.int32)
    scores = warm.run(TokenBatch(ids, np.zeros_like(ids), np.array([8, 0], np.int32)))
    assert scores.shape == (2, 1)
    assert np.isfinite(scores).all()


def test_a_result_is_the_callers_own(warm: OnnxCudaRuntime) -> None:
    batch = packed_toys.rows((5, 6))
    first = warm.run_packed(batch)
    kept = first.copy()
    warm.run_packed(packed_toys.rows((5, 6), seed=3))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


def test_callers_at_the_same_time_get_their_own_rows(warm: OnnxCudaRuntime) -> None:
    batches = [packed_toys.rows((3 + seed, 30, 90 - seed), seed=seed) for seed in range(8)]
    expected = [warm.run_packed(batch) for batch in batches]
    together = threading.Barrier(4)

    def ask(caller: int) -> list[Float32Array]:
        together.wait()
        order = [*batches[caller:], *batches[:caller]] * 3
        return [warm.run_packed(batch) for batch in order]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    for caller, results in enumerate(answers):
        for result, wanted in zip(results, [*expected[caller:], *expected[:caller]] * 3, strict=True):
            np.testing.assert_array_equal(result, wanted)


def test_a_batch_that_is_too_large_is_refused_and_others_go_on(warm: OnnxCudaRuntime) -> None:
    batch = packed_toys.rows((9,))
    before = warm.run_packed(batch)
    for lengths, longest in (((128, 128, 1), 128), ((129,), 129)):
        sentence = (
            f"a batch of {len(lengths)} rows with {sum(lengths)} tokens, the longest of {longest}, is larger than"
        )
        with pytest.raises(ValueError, match=sentence):
            warm.run_packed(packed_toys.rows(lengths))
    np.testing.assert_array_equal(warm.run_packed(batch), before)


def test_a_batch_that_fails_on_the_device_tells_its_caller_and_others_go_on(warm: OnnxCudaRuntime) -> None:
    batch = packed_toys.rows((9,))
    before = warm.run_packed(batch)
    unknown = dataclasses.replace(batch, input_ids=np.full(9, 10**6, np.int32))
    with pytest.raises(Exception, match="input index out of range"):
        warm.run_packed(unknown)
    np.testing.assert_array_equal(warm.run_packed(batch), before)


def test_it_is_told_from_a_runtime_with_padding(warm: OnnxCudaRuntime, packed_toy: PackedToy) -> None:
    plain = OnnxCpuRuntime(packed_toy.plain)
    assert is_packed(warm)
    assert not is_packed(plain)
    plain.close()


def test_nothing_is_captured_on_a_cpu_and_the_reason_is_told(warm: OnnxCudaRuntime) -> None:
    assert warm.info.provider == "CPUExecutionProvider"
    assert warm.info.version == ort.__version__
    cuda = warm.info.cuda
    assert cuda is not None
    assert (cuda.graphs, cuda.eager) == (0, len(list(warm.shapes)))
    assert cuda.eager_reason == "a CPU captures no graphs"


def test_what_is_known_of_the_device_is_told(packed_toy: PackedToy) -> None:
    used = iter((1000, 1500))
    facts = DeviceFacts(
        name="NVIDIA H200",
        driver="580.95.05",
        cudnn="9.28.1",
        attention_kernels=("FLASH_ATTENTION",) * 2,
        used_bytes=lambda: next(used),
    )
    with running(packed_toy, dataclasses.replace(CPU, warm=False), facts=facts) as runtime:
        info = runtime.info
    assert info.device == "NVIDIA H200"
    assert info.cuda is not None
    assert (info.cuda.driver, info.cuda.cudnn) == ("580.95.05", "9.28.1")
    assert info.cuda.attention_kernels == ("FLASH_ATTENTION", "FLASH_ATTENTION")
    assert info.cuda.memory_bytes == 500


def test_every_shape_is_timed_while_it_is_warmed(packed_toy: PackedToy) -> None:
    ticks = iter(range(10**6))
    with running(packed_toy, now=lambda: float(next(ticks))) as runtime:
        seconds = runtime.seconds()
        assert list(seconds) == list(runtime.shapes)
        assert set(seconds.values()) == {1.0}  # a clock that goes on by one whenever it is read
        seconds.clear()
        assert runtime.seconds()  # a copy


def test_shapes_may_be_run_for_the_first_time_when_a_batch_needs_them(packed_toy: PackedToy) -> None:
    batch = packed_toys.rows(LENGTHS)
    with running(packed_toy, dataclasses.replace(CPU, warm=False)) as runtime:
        assert runtime.seconds() == {}
        assert runtime.info.cuda is not None
        assert (runtime.info.cuda.graphs, runtime.info.cuda.eager, runtime.info.cuda.eager_reason) == (0, 0, "")
        for each in (batch, packed_toys.rows((3,))):
            assert packing.close(runtime.run_packed(each), packed_toys.expected(packed_toy, each))
        assert runtime.seconds() == {}


def test_a_graph_with_padded_inputs_is_refused_and_leaves_no_thread(packed_toy: PackedToy) -> None:
    before = len(owners())
    with pytest.raises(Exception, match=r"expected: \(tensor\(int64\)\)"):
        OnnxCudaRuntime(packed_toy.plain, CPU)
    assert len(owners()) == before


def test_closing_ends_the_thread_and_may_be_repeated(packed_toy: PackedToy) -> None:
    before = len(owners())
    with running(packed_toy, dataclasses.replace(CPU, warm=False)) as runtime:
        assert len(owners()) == before + 1
        runtime.close()
        assert len(owners()) == before
        runtime.close()


def test_a_provider_that_is_not_there_is_never_replaced(packed_toy: PackedToy) -> None:
    if PROVIDER in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    before = len(owners())
    with pytest.raises(RuntimeMissing, match=r"no CUDAExecutionProvider.*`pairwire doctor` tells more"):
        OnnxCudaRuntime(packed_toy.on_gpu, CudaOptions(longest=LONGEST, most_tokens=256))
    assert len(owners()) == before


def gpu(**changes: object) -> CudaOptions:
    """Options for the GPU; skips the test where there is none."""
    if not packed_toys.has_gpu():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    return dataclasses.replace(CPU, provider="cuda", **changes)  # type: ignore[arg-type]  # any field


def every_shape(runtime: OnnxCudaRuntime) -> Iterator[PackedBatch]:
    """Two batches for each shape, unlike in data and lengths."""
    for number, shape in enumerate(runtime.shapes):
        most = min(shape.length, LONGEST)
        tokens = min(shape.tokens, shape.rows * most) - 3
        for seed, row in ((2 * number, most), (2 * number + 1, min(most, 37))):
            whole, left = divmod(tokens, row)
            yield packed_toys.rows((row,) * whole + (left,) * bool(left), seed=seed)


@pytest.mark.gpu
def test_every_shape_is_captured(packed_toy: PackedToy) -> None:
    with running(packed_toy, gpu()) as runtime:
        assert runtime.info.provider == PROVIDER
        cuda = runtime.info.cuda
        assert cuda is not None
        assert (cuda.graphs, cuda.eager, cuda.eager_reason) == (len(list(runtime.shapes)), 0, "")


@pytest.mark.gpu
def test_a_captured_graph_is_replayed_with_the_data_of_each_batch(packed_toy: PackedToy) -> None:
    with running(packed_toy, gpu()) as runtime:
        batches = list(every_shape(runtime))
        first = [runtime.run_packed(batch) for batch in batches]
        for batch, scores in zip(batches, first, strict=True):
            assert packing.close(scores, packed_toys.expected(packed_toy, batch), tolerance=LOOSE)
        for batch, scores in reversed(list(zip(batches, first, strict=True))):
            np.testing.assert_array_equal(runtime.run_packed(batch), scores)


@pytest.mark.gpu
def test_operators_one_by_one_give_what_the_captured_graph_gives(packed_toy: PackedToy) -> None:
    with running(packed_toy, gpu()) as captured, running(packed_toy, gpu(capture=False)) as eager:
        assert eager.info.cuda is not None
        assert eager.info.cuda.graphs == 0
        assert eager.info.cuda.eager_reason == "turned off by cuda_graphs"
        for batch in every_shape(captured):
            assert packing.close(captured.run_packed(batch), eager.run_packed(batch), tolerance=0.001)


@pytest.mark.gpu
def test_float16_on_a_gpu_is_close_to_float32_on_a_cpu(packed_toy: PackedToy) -> None:
    batch = packed_toys.rows(LENGTHS)
    with running(packed_toy, gpu()) as runtime:
        scores = runtime.run_packed(batch)
    assert packing.close(scores, packed_toys.expected(packed_toy, batch), tolerance=LOOSE)


@pytest.mark.gpu
def test_a_device_that_is_not_there_is_missing(packed_toy: PackedToy) -> None:
    with pytest.raises(RuntimeMissing, match=r"on device 99.*`pairwire doctor` tells why"):
        OnnxCudaRuntime(packed_toy.on_gpu, gpu(device_id=99))
