"""What a server says of its models when it begins to serve."""

from __future__ import annotations

import dataclasses

import pytest

from pairwire.server.banner import cuda_line, serving_line, start_up_table
from pairwire.server.engine import ModelInfo, ModelKind
from pairwire.server.runtime.base import CudaInfo, RuntimeInfo
from tests.server.engine import toys

CUDA = CudaInfo(
    device_id=1,
    driver="580.95.05",
    cuda="13.0",
    cudnn="9.28.1",
    attention_kernels=("FLASH_ATTENTION",) * 5 + ("MATH",),
    graphs=58,
    eager=0,
    eager_reason="",
    memory_bytes=512 << 20,
)


def info(cuda: CudaInfo | None) -> ModelInfo:
    return ModelInfo(
        name="reranker",
        kind=ModelKind.CROSS_ENCODER,
        manifest=toys.cross_encoder_manifest(),
        variant="cuda-fp16",
        max_length=512,
        bucket_lengths=(64, 16384),
        runtime=RuntimeInfo("CUDAExecutionProvider", "NVIDIA H200", "1.31.1", 1, cuda),
        workers=2,
    )


def test_a_model_on_a_gpu_tells_all_that_it_found_in_one_line() -> None:
    assert cuda_line(info(CUDA)) == (
        "reranker: NVIDIA H200 (device 1), driver 580.95.05, CUDA 13.0, cuDNN 9.28.1; "
        "attention FLASH_ATTENTION x 5, MATH x 1; 58 CUDA graphs; 512 MiB"
    )


def test_what_is_not_known_is_called_so() -> None:
    line = cuda_line(info(dataclasses.replace(CUDA, driver="", cudnn="", attention_kernels=())))
    assert "driver unknown, CUDA 13.0, cuDNN none; attention unknown; 58" in line


def test_shapes_that_were_not_captured_are_told_with_the_reason() -> None:
    line = cuda_line(info(dataclasses.replace(CUDA, graphs=50, eager=8, eager_reason="RuntimeError: out of memory")))
    assert line.endswith("; 50 CUDA graphs, 8 shapes by operators: RuntimeError: out of memory; 512 MiB")


def test_only_models_on_a_gpu_have_a_line_below_the_table() -> None:
    lines = start_up_table([info(None), info(CUDA), info(None)]).splitlines()
    assert len(lines) == 5
    assert lines[4] == cuda_line(info(CUDA))
    words = " ".join(lines[1].split())
    assert words == "reranker cross-encoder cuda-fp16 CUDAExecutionProvider 2 x 1 2, from 64 to 16384"


@pytest.mark.parametrize(
    ("host", "metrics_port", "line"),
    [
        ("127.0.0.1", 9090, "pairwire: serving on 127.0.0.1:50051, metrics on 127.0.0.1:9090"),
        ("::1", None, "pairwire: serving on [::1]:50051, metrics off"),
    ],
)
def test_programs_read_the_ports_from_one_line(host: str, metrics_port: int | None, line: str) -> None:
    assert serving_line(host, 50051, metrics_port) == line
