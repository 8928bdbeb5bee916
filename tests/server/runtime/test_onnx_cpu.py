from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from pairwire.server.runtime.base import TokenBatch
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime
from tests.server import packages


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "sum.onnx"
    packages.save_sum_graph(path, outputs=2)
    return path


def _batch(rows: int, length: int, seed: int = 0) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch(
        input_ids=random.integers(1, 100, (rows, length), dtype=np.int32),
        token_type_ids=random.integers(0, 2, (rows, length), dtype=np.int32),
        lengths=random.integers(0, length + 1, rows, dtype=np.int32),
    )


def _expected(batch: TokenBatch) -> list[list[float]]:
    sums = [
        float(batch.input_ids[row, :length].sum() + batch.token_type_ids[row, :length].sum())
        for row, length in enumerate(batch.lengths)
    ]
    return [[value, value] for value in sums]


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 8), (64, 8), (1, 512)])
def test_any_shape_runs_and_padding_is_masked(graph: Path, rows: int, length: int) -> None:
    batch = _batch(rows, length)
    values = OnnxCpuRuntime(graph).run(batch)
    assert values.dtype == np.float32
    assert values.tolist() == _expected(batch)


def test_several_threads_may_run_at_once(graph: Path) -> None:
    runtime = OnnxCpuRuntime(graph, CpuOptions(disabled_optimizers=["SkipLayerNormFusion"]))
    batches = [_batch(4, 16, seed) for seed in range(50)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(runtime.run, batches))
    assert [values.tolist() for values in results] == [_expected(batch) for batch in batches]


def test_it_tells_what_it_is(graph: Path) -> None:
    info = OnnxCpuRuntime(graph, CpuOptions(intra_op_threads=2)).info
    assert (info.provider, info.intra_op_threads) == ("CPUExecutionProvider", 2)
    assert info.version
    assert info.device


def test_an_input_that_is_not_text_is_refused(tmp_path: Path) -> None:
    packages.save_sum_graph(tmp_path / "image.onnx", extra_input="pixel_values")
    with pytest.raises(ValueError, match="asks for an input 'pixel_values'"):
        OnnxCpuRuntime(tmp_path / "image.onnx").run(_batch(1, 4))


def test_a_closed_runtime_runs_no_more(graph: Path) -> None:
    runtime = OnnxCpuRuntime(graph)
    runtime.close()
    with pytest.raises(AttributeError):
        runtime.run(_batch(1, 4))


WIDE_MIB = 96


def _save_wide_graph(path: Path) -> None:
    """A graph that needs some ``WIDE_MIB`` on the way for a batch of 1 x 1024, and gives the sum of the token ids."""
    width = WIDE_MIB * 2**20 // 4 // 1024
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["tall"]),
        helper.make_node("Mul", ["tall", "ones"], ["wide"]),
        helper.make_node("ReduceMean", ["wide", "last"], ["narrow"], keepdims=0),
        helper.make_node("ReduceSum", ["narrow", "one"], ["logits"], keepdims=1),
    ]
    constants = {
        "last": np.array([2], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "ones": np.ones((1, 1, width), dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def test_two_models_share_the_memory_of_their_batches(tmp_path: Path) -> None:
    _save_wide_graph(tmp_path / "wide.onnx")
    first, second = (OnnxCpuRuntime(tmp_path / "wide.onnx") for _ in range(2))
    batch = _batch(1, 1024)
    values = first.run(batch)
    before = psutil.Process().memory_info().rss
    assert second.run(batch).tolist() == values.tolist()
    grown_mib = (psutil.Process().memory_info().rss - before) / 2**20
    assert values[0, 0] == pytest.approx(batch.input_ids.sum(), rel=1e-3)
    assert grown_mib < WIDE_MIB / 2
