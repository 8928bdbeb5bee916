"""Is exactly one of ONNX Runtime's wheels installed? Both write into one folder, and the last one wins silently."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from ..errors import RuntimeMissing

WHEELS = ("onnxruntime", "onnxruntime-gpu")


def check_wheels(version_of: Callable[[str], str] = metadata.version) -> str:
    """The name of the one that is installed.

    Raises:
        RuntimeMissing: neither or both are there.
    """
    found = [name for name in WHEELS if _installed(name, version_of)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RuntimeMissing(
            "onnxruntime is not installed", "install `pairwire[cpu]`, or `pairwire[gpu]` for an NVIDIA GPU"
        )
    raise RuntimeMissing(
        "both onnxruntime and onnxruntime-gpu are installed and overwrite each other",
        "run `pip uninstall -y onnxruntime onnxruntime-gpu`, then install one of `pairwire[cpu]` and `pairwire[gpu]`",
    )


def _installed(name: str, version_of: Callable[[str], str]) -> bool:
    try:
        version_of(name)
    except metadata.PackageNotFoundError:
        return False
    return True
