"""ONNX Runtime, imported here and nowhere else, and first set to send nothing.

Since 1.29 its Linux wheels write a device id and a database of events under the cache directory when they are imported,
and look up a host of Microsoft's soon after. Only the environment stops that: ``disable_telemetry_events`` comes too
late. A variable that is set already, to whatever value, is the user's own choice and stays.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):  # the exporter's libraries ask for the second
    os.environ.setdefault(_variable, "1")

import onnxruntime as ort  # noqa: E402 - it reads the environment when it is imported

__all__ = ["ort", "tool"]


def tool(name: str) -> Any:
    """A module of ``onnxruntime.tools``, which needs more packages than ONNX Runtime itself."""
    return importlib.import_module(f"onnxruntime.tools.{name}")
