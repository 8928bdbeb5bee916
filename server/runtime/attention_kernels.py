"""Which kernel ONNX Runtime's CUDA provider takes for each attention. It tells only when asked to, on stdout."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .cuda_session import CudaOptions
from .descriptors import kept
from .onnx_cuda import OnnxCudaRuntime

_ASK = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"
_FEW_TOKENS = 64
_LINE = re.compile(r"Node=(\S+).*?SdpaKernel=(\w+)")


@contextmanager
def asking() -> Iterator[list[str]]:
    """Sessions that are opened and run inside tell their kernels, into the list, when the block ends.

    The standard output of the whole process goes elsewhere meanwhile: use it while nothing is served.
    """
    found: list[str] = []
    told: list[str] = []
    before = os.environ.get(_ASK)
    os.environ[_ASK] = "1"
    try:
        with kept(1) as told:
            yield found
    finally:
        found.extend(kernels_in("".join(told)))
        if before is None:
            del os.environ[_ASK]
        else:
            os.environ[_ASK] = before


def kernels_in(text: str) -> list[str]:
    """The kernel of each node that a text names, in order: ``FLASH_ATTENTION``, ``CUDNN_FLASH_ATTENTION``, ``MATH`` ...

    One that took several, for different shapes, has them with a | between.
    """
    kernels: dict[str, list[str]] = {}
    for match in _LINE.finditer(text):
        taken = kernels.setdefault(match.group(1), [])
        if match.group(2) not in taken:
            taken.append(match.group(2))
    return ["|".join(taken) for taken in kernels.values()]


def attention_kernels(graph: Path, options: CudaOptions) -> tuple[str, ...]:
    """The kernel of each attention for small batches, by a session of its own: half a second."""
    small = dataclasses.replace(options, most_tokens=_FEW_TOKENS, capture=False)
    with asking() as found:
        OnnxCudaRuntime(graph, small).close()
    return tuple(found)
