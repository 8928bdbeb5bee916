"""What the operating system tells of the processor: its name and what it can do. Needs no ONNX Runtime."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """As sold, e.g. ``AMD EPYC 9B45``, or at least the architecture."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_flags() -> str:
    """Names of the instruction sets, separated by spaces, as Linux spells them; empty where it does not tell."""
    return _cpuinfo("flags")


def int8_saturates(machine: str, flags: str) -> bool:
    """Whether uint8 x int8 products overflow 16 bits on the way, which changes scores: x86 without VNNI does that."""
    return machine.lower() in ("x86_64", "amd64") and "vnni" not in flags


def _cpuinfo(key: str) -> str:
    """Value of the first such line of /proc/cpuinfo; empty where there is none."""
    for line in _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else ():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""
