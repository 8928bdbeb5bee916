"""Whether the provider works is found out with a real session; other providers stand in for CUDA's."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pairwire.server.runtime.cuda_probe import IDENTITY_GRAPH, PROVIDER, cuda_fault
from pairwire.server.runtime.nvidia import count_cards
from pairwire.server.runtime.ort import ort

LOG = (
    "\x1b[1;31m2026-11-27 06:56:07.77 [E:onnxruntime:Default, bridge.cc:2458 operator()] /onnx/bridge.cc:2043 Get() "
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load libonnxruntime_providers_cuda.so with error: no libcublasLt.so.13\n"
    "\x1b[m\n\x1b[0;93m2026-11-27 06:56:07.78 [W:onnxruntime:Default, state.cc:1295 Create] Failed to create.\x1b[m\n"
)


def test_the_graph_is_the_one_that_its_comment_makes() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert onnx.load_model_from_string(IDENTITY_GRAPH) == made


def test_a_provider_that_works_has_no_fault() -> None:
    assert cuda_fault(ort, "CPUExecutionProvider") == ""


def fake(chosen: str, answer: float = 1.5, log: str = "") -> Any:
    """An onnxruntime whose sessions run on ``chosen``, whatever they are asked for."""

    def session(graph: bytes, **unused: object) -> object:
        os.write(2, log.encode())
        return SimpleNamespace(
            get_providers=lambda: [chosen], run=lambda names, feeds: [np.array([answer], np.float32)]
        )

    return SimpleNamespace(InferenceSession=session)


def test_a_provider_that_fell_back_gives_the_reason_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    fault = cuda_fault(fake("CPUExecutionProvider", log=LOG))
    assert fault == "Failed to load libonnxruntime_providers_cuda.so with error: no libcublasLt.so.13"
    assert capfd.readouterr().err == ""


def test_a_silent_fallback_is_a_fault_too() -> None:
    assert cuda_fault(fake("CPUExecutionProvider")) == "ONNX Runtime took CPUExecutionProvider in its place"


def test_a_wrong_answer_is_a_fault() -> None:
    assert cuda_fault(fake(PROVIDER)) == ""
    assert "got [0.0] back" in cuda_fault(fake(PROVIDER, answer=0.0))


def test_an_exception_is_a_fault_and_stderr_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    def session(graph: bytes, **unused: object) -> object:
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")

    assert cuda_fault(SimpleNamespace(InferenceSession=session)).startswith("CUDA failure 35")
    os.write(2, b"audible")
    assert capfd.readouterr().err == "audible"


@pytest.mark.gpu
def test_cuda_works_here() -> None:
    if PROVIDER not in ort.get_available_providers() or not count_cards():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    ort.preload_dlls()
    assert cuda_fault(ort) == ""
