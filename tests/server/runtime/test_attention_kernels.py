"""What ONNX Runtime tells of its attention kernels on standard output is caught, and nothing else changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pairwire.server.runtime.attention_kernels import asking, attention_kernels, kernels_in
from pairwire.server.runtime.cuda_session import CudaOptions
from tests.server.packed_toys import LONGEST, PackedToy

ASK = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"


def line(node: str, kernel: str) -> str:
    return f"Operator=PackedMultiHeadAttention Node={node} DataType=fp16 SdpaKernel={kernel}\n"


def test_each_attention_has_its_kernel_in_order() -> None:
    text = line("/b", "FLASH_ATTENTION") + line("/a/attention", "CUDNN_FLASH_ATTENTION") + line("/c", "MATH")
    assert kernels_in(text) == ["FLASH_ATTENTION", "CUDNN_FLASH_ATTENTION", "MATH"]


def test_attention_that_says_the_same_again_is_told_once() -> None:
    layers = line("/a", "FLASH_ATTENTION") + line("/b", "FLASH_ATTENTION")
    assert kernels_in(layers * 3) == ["FLASH_ATTENTION", "FLASH_ATTENTION"]


def test_kernels_of_several_shapes_stand_side_by_side() -> None:
    text = line("/a", "FLASH_ATTENTION") + line("/b", "MATH") + line("/a", "EFFICIENT_ATTENTION") + line("/a", "MATH")
    assert kernels_in(text) == ["FLASH_ATTENTION|EFFICIENT_ATTENTION|MATH", "MATH"]


def test_other_lines_say_nothing() -> None:
    assert kernels_in("") == []
    assert kernels_in("Operator=MatMul Node=/a\nSdpaKernel=MATH\n2026-11-27 [W:onnxruntime] Node=/a\n") == []


def test_what_c_code_prints_inside_is_read_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with asking() as found:
        assert os.environ[ASK] == "1"
        os.write(1, (line("/a", "FLASH_ATTENTION") + "noise\n").encode())
        assert found == []
    assert found == ["FLASH_ATTENTION"]
    os.write(1, b"audible")
    assert capfd.readouterr().out == "audible"


def test_what_is_no_text_is_no_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    with asking() as found:
        os.write(1, b"\xff\xfe\n" + line("/a", "MATH").encode())
    assert found == ["MATH"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("before", [None, "0"])
def test_the_environment_is_as_it_was(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv(ASK, raising=False)
    else:
        monkeypatch.setenv(ASK, before)
    with asking():
        pass
    assert os.environ.get(ASK) == before


def test_a_block_that_fails_gives_standard_output_and_the_environment_back(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ASK, raising=False)
    before = _open_files()
    found: list[str] = []

    def fail() -> None:
        nonlocal found
        with asking() as found:
            os.write(1, line("/a", "MATH").encode())
            raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        fail()
    assert found == ["MATH"]
    assert ASK not in os.environ
    os.write(1, b"audible")
    assert capfd.readouterr().out == "audible"
    assert _open_files() == before


def _open_files() -> int:
    files = Path("/proc/self/fd")
    return len(list(files.iterdir())) if files.is_dir() else 0


def test_a_cpu_tells_of_no_kernel(packed_toy: PackedToy, capfd: pytest.CaptureFixture[str]) -> None:
    options = CudaOptions(provider="cpu", longest=LONGEST, most_tokens=256)
    assert attention_kernels(packed_toy.on_cpu, options) == ()
    assert capfd.readouterr().out == ""
