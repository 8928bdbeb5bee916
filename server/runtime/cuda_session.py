"""How a session on ONNX Runtime's CUDA provider is built: on that provider, or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import RuntimeMissing
from .cuda_probe import PROVIDER
from .nvidia import preload_libraries
from .ort import ort


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaOptions:
    """How a CUDA session is built."""

    longest: int
    """Most tokens of a row."""
    most_tokens: int
    """Most tokens of a batch."""
    device_id: int = 0
    provider: Literal["cuda", "cpu"] = "cuda"
    """cpu runs the same code without a GPU."""
    memory_limit_bytes: int = 0
    """Most memory of the device that ONNX Runtime may take for weights and activations; 0 for all there is."""
    capture: bool = True
    """False runs operator by operator."""
    warm: bool = True
    """False runs a shape for the first time when a batch needs it: for checks that are in no hurry later."""
    pad_token_id: int = 0


def open_session(graph: Path, options: CudaOptions) -> ort.InferenceSession:
    """A session on the provider that was asked for, and on no other.

    Raises:
        RuntimeMissing: ONNX Runtime fell back to another provider, or has not got this one.
    """
    built = ort.SessionOptions()
    built.log_severity_level = 3
    built.enable_mem_pattern = False
    if options.provider == "cpu":
        return ort.InferenceSession(str(graph), built, providers=["CPUExecutionProvider"])
    if PROVIDER not in ort.get_available_providers():
        raise RuntimeMissing(
            f"this onnxruntime has no {PROVIDER}; install `pairwire[gpu]` instead of `pairwire[cpu]`, "
            "`pairwire doctor` tells more"
        )
    # As the driver's own tools count; CUDA would put the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    preload_libraries()
    ort.set_default_logger_severity(3)  # it warns about a plug-in that this wheel does not have
    # An operator that fell to the CPU would copy to and fro at every run, and could not be captured: refuse it.
    built.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    reason = ""
    try:
        # Its own fallback would print to stdout and go on without the GPU.
        session = ort.InferenceSession(
            str(graph), built, providers=[(PROVIDER, _provider_options(options))], enable_fallback=0
        )
    except Exception as error:  # onnxruntime has exception types of its own, without a common base
        session, reason = None, f" ({str(error).strip().splitlines()[0][:300]})"
    if session is None or session.get_providers()[0] != PROVIDER:
        raise RuntimeMissing(
            f"ONNX Runtime could not start {PROVIDER} on device {options.device_id}{reason}; "
            "`pairwire doctor` tells why"
        )
    return session


def _provider_options(options: CudaOptions) -> dict[str, str]:
    chosen = {
        "device_id": str(options.device_id),
        "enable_cuda_graph": str(int(options.capture)),
        # The float32 parts, pooling and head, are a thousandth of the work: no reason to round them to 10 bits.
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if options.memory_limit_bytes:
        chosen["gpu_mem_limit"] = str(options.memory_limit_bytes)
    return chosen
