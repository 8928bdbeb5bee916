"""Does an export fit into memory? Asked before it starts: what the system kills says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pairwire.server.cpus import cgroup_directories

from .errors import MemoryShort

BASE_BYTES = 1.0e9
"""What torch, transformers and ONNX Runtime take, and the tokens that calibration keeps."""
PER_WEIGHT = 2.4
"""Bytes at the peak, when the graph is written, for each byte of the float32 weights (`benchmarks.export`)."""
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")
_FLOAT32 = 4
_UNUSED = ("onnx", "openvino")
"""Folders that hold the weights again, in other forms."""


def check_memory(directory: Path, name: str) -> None:
    """Raises where the export of a checkpoint, which people call ``name``, will not fit.

    Raises:
        MemoryShort: with what it takes, what is there, and what to do.
    """
    weights, available = weight_bytes(directory), available_bytes()
    needed = needed_bytes(weights)
    if available is not None and needed > available:
        raise MemoryShort(
            f"{name}: its export takes about {needed / 1e9:.1f} GB of memory ({weights / _FLOAT32 / 1e6:.0f} M weights)"
            f" and {available / 1e9:.1f} GB are available; free some, export on a larger machine (a package runs"
            " anywhere), or go ahead with --no-memory-check"
        )


def needed_bytes(weights: int) -> float:
    """The peak of an export of this many bytes of float32 weights."""
    return BASE_BYTES + PER_WEIGHT * weights


def weight_bytes(directory: Path) -> int:
    """Bytes of a checkpoint's weights once they are float32, by its files: nothing is loaded."""
    folders = [directory, *(each for each in directory.rglob("*") if each.is_dir() and each.name not in _UNUSED)]
    return sum(map(_bytes_in, folders))


def available_bytes(
    memory: Path = _MEMORY, cgroup_root: Path = _CGROUP_ROOT, cgroup_of_process: Path = _PROCESS
) -> int | None:
    """Memory that this process can still take: the system's, or less where a cgroup limits it; None if nobody says."""
    found = [*_of_system(memory)]
    for folder in cgroup_directories(cgroup_root, cgroup_of_process, "memory"):
        found += _of_group(folder, "memory.max", "memory.current", "inactive_file")
        found += _of_group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return min(found, default=None)


def _bytes_in(folder: Path) -> int:
    """The weights that transformers would read there: safetensors, or else pickles."""
    tensors = sorted(folder.glob("*.safetensors"))
    if tensors:
        return sum(map(_of_safetensors, tensors))
    return sum(_of_pickle(file) for file in folder.glob("pytorch_model*.bin"))


def _of_safetensors(file: Path) -> int:
    """By its header, which says how many numbers there are: those of 16 bits become twice as large."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(size, file.stat().st_size)))
        return sum(_count(entry["shape"]) for key, entry in header.items() if key != "__metadata__") * _FLOAT32
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _size(file)  # damaged: whoever loads it says so


def _of_pickle(file: Path) -> int:
    try:
        kind = str(json.loads((file.parent / "config.json").read_text(encoding="utf-8")).get("torch_dtype"))
    except (OSError, ValueError, AttributeError):
        kind = ""
    return _size(file) * (2 if kind.endswith("float16") else 1)


def _count(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= int(size)
    return count


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _of_system(memory: Path) -> Iterator[int]:
    for line in _lines(memory):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_group(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """What is left of a limit. Pages of files count as used there, but give way."""
    most, used = ("".join(_lines(folder / name)) for name in (limit, usage))
    if most.isdecimal() and used.isdecimal():
        freed = [line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{reclaimable} ")]
        yield max(0, int(most) - int(used) + sum(map(int, freed)))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
