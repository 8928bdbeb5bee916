"""What of NVIDIA is on this machine: cards, the GPUs that the driver shows, and the libraries of CUDA.

It asks and tells; what that means for Pairwire is the business of `pairwire doctor`. Works without ONNX Runtime too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RuntimeMissing

OLDEST_DRIVER = 580
"""The first driver with CUDA 13, which onnxruntime-gpu 1.31 is built with."""
INSTALL_PYNVML = "run `pip install 'nvidia-ml-py>=13'`"
INSTALL_DRIVER = (
    f"on Ubuntu run `sudo apt-get install -y nvidia-driver-{OLDEST_DRIVER}-open && sudo reboot`, elsewhere see "
    "https://www.nvidia.com/drivers; a container has the driver of its host"
)
SHARE_GPUS = "in a container, start it with `docker run --gpus all`"

_FAULTS = {
    4: ("this user may not use the NVIDIA driver", "run `ls -l /dev/nvidia*` and give the user access to these files"),
    9: ("the kernel module of the NVIDIA driver is not loaded", "run `sudo modprobe nvidia`"),
    12: (
        "no NVIDIA driver is here: libnvidia-ml.so.1 cannot be loaded",
        f"{SHARE_GPUS}; where the host has no driver: {INSTALL_DRIVER}",
    ),
    13: ("the NVIDIA driver is too old for nvidia-ml-py", INSTALL_DRIVER),
    15: ("a GPU has stopped answering the NVIDIA driver", "run `sudo dmesg | grep -i xid` for its reason, then reboot"),
    18: ("the NVIDIA driver was replaced under the running kernel, and both differ", "run `sudo reboot`"),
    25: ("the NVIDIA driver is too old for nvidia-ml-py", INSTALL_DRIVER),
}
"""NVML's return code (nvml.h, ``nvmlReturn_t``) -> cause, fix."""
_NOT_SUPPORTED = 3


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the driver shows. CUDA may count others, and in another order, where CUDA_VISIBLE_DEVICES is set."""

    index: int
    """The driver's count, from 0."""
    name: str
    memory_bytes: int
    """0 where the GPU has none of its own, because it shares that of the CPU."""
    used_bytes: int
    """Of ``memory_bytes``, by all processes."""
    compute_capability: tuple[int, int]
    driver: str
    """Version of the driver, e.g. ``580.95.05``."""
    cuda_driver: str
    """The newest CUDA that the driver can run, e.g. ``13.0``."""


def find_gpus(import_nvml: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> tuple[Gpu, ...]:
    """All GPUs that the driver shows, in its order; none where the driver works and has none.

    Raises:
        RuntimeMissing: the driver cannot be asked: it is missing, broken or too old, or nvidia-ml-py is not installed.
    """
    try:
        nvml = import_nvml()
    except ImportError as error:
        raise RuntimeMissing("nvidia-ml-py, which asks the NVIDIA driver, is not installed", INSTALL_PYNVML) from error
    try:
        with _driver(nvml):
            driver, cuda = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlSystemGetCudaDriverVersion_v2()
            cuda_driver = f"{cuda // 1000}.{cuda % 1000 // 10}"
            return tuple(_gpu(nvml, index, driver, cuda_driver) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError as error:
        unknown = (f"the NVIDIA driver does not answer ({error})", "run `nvidia-smi`, which tells more")
        raise RuntimeMissing(*_FAULTS.get(error.value, unknown)) from error


@contextmanager
def _driver(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, driver: str, cuda_driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    total, used = _memory(nvml, handle)
    capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Gpu(index, nvml.nvmlDeviceGetName(handle), total, used, (capability[0], capability[1]), driver, cuda_driver)


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if error.value != _NOT_SUPPORTED:
            raise
        return 0, 0
    return int(memory.total), int(memory.used)


def used_by_process(
    index: int, pid: int, import_nvml: Callable[[], Any] = lambda: importlib.import_module("pynvml")
) -> int | None:
    """Bytes that a process has on a GPU, by the driver's number of it; None where the driver does not tell."""
    try:
        nvml = import_nvml()
    except ImportError:
        return None
    try:
        with _driver(nvml):
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError:
        return None
    return next((process.usedGpuMemory for process in processes if process.pid == pid), None)


def count_cards(pci: Path = Path("/sys/bus/pci/devices"), dev: Path = Path("/dev")) -> int:
    """NVIDIA cards on the PCI bus, with or without a driver; or those of ``dev``, where the bus is hidden.

    A container sees its host's bus, even if it may not use the cards.
    """
    on_bus = sum(
        _read(device / "vendor") == "0x10de" and _read(device / "class").startswith("0x03")
        for device in (pci.iterdir() if pci.is_dir() else ())
    )
    return on_bus or len(list(dev.glob("nvidia[0-9]*")))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library that ONNX Runtime's CUDA provider makes use of."""

    name: str
    """Its soname."""
    found: str
    """The file that was loaded, and cuDNN's version; empty where it cannot be loaded."""
    wanted_by: str
    pip: str
    """What pip calls the package that brings it, with its range of versions; empty where none does."""
    required: bool = True
    """Whether Pairwire's models cannot run without it."""
    error: str = ""
    """The loader's own words, where it cannot be loaded."""

    @property
    def problem(self) -> str:
        """What is wrong with it, after its name; empty if nothing is."""
        if self.found:
            return ""
        missing = self.error.startswith(f"{self.name}: cannot open shared object file")
        return "is missing" if missing else f"cannot be loaded ({self.error})"


_PROVIDER = "the CUDA provider"
_LIBRARIES = (
    ("libcublas.so.13", _PROVIDER, "nvidia-cublas~=13.0", True),
    ("libcublasLt.so.13", _PROVIDER, "nvidia-cublas~=13.0", True),
    ("libcuda.so.1", "the CUDA provider; part of the driver", "", True),
    ("libcudart.so.13", _PROVIDER, "nvidia-cuda-runtime~=13.0", True),
    ("libcudnn.so.9", "convolutions; Pairwire's packed attention does not need it", "nvidia-cudnn-cu13~=9.0", False),
    ("libcufft.so.12", "Fourier transforms, which no model of Pairwire has", "nvidia-cufft~=12.0", False),
    ("libcurand.so.10", _PROVIDER, "nvidia-curand~=10.0", True),
    ("libnvrtc.so.13", "kernels that are compiled while a model runs", "nvidia-cuda-nvrtc~=13.0", False),
)
"""Required is what ``readelf -d libonnxruntime_providers_cuda.so`` of onnxruntime-gpu 1.31.1 lists as NEEDED; it opens
the others when an operator asks. Ranges are those of its extras: nvidia-cublas is in none, nvidia-cudnn-cu13 brings it.
"""


def find_libraries(
    *,
    preload: Callable[[], object] | None = None,
    load: Callable[[str], Any] = ctypes.CDLL,
    maps: Path = Path("/proc/self/maps"),
) -> tuple[Library, ...]:
    """What the CUDA provider of onnxruntime-gpu 1.31 needs, by name, and whether this process can load it.

    ``preload`` makes pip's packages known to the loader: ONNX Runtime does that, unless it is given. ``maps`` tells
    which files a process has loaded.
    """
    (preload_libraries if preload is None else preload)()
    return tuple(_library(*known, load, maps) for known in _LIBRARIES)


def import_ort() -> Any:
    """ONNX Runtime, which may be missing or broken."""
    from .ort import ort

    return ort


def preload_libraries(import_ort: Callable[[], Any] = import_ort) -> None:
    """Lets ONNX Runtime load the libraries that pip has installed; does nothing without onnxruntime-gpu."""
    # It prints what it misses, without a way to ask it not to; a broken installation has no such function.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ImportError, AttributeError, RuntimeError):
        import_ort().preload_dlls()


def cudnn_version(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Version of the cuDNN 9 that this process can load, e.g. ``9.28.1``; empty where it cannot."""
    try:
        number = int(load("libcudnn.so.9").cudnnGetVersion())
    except (OSError, AttributeError):
        return ""
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


def _library(name: str, wanted_by: str, pip: str, required: bool, load: Callable[[str], Any], maps: Path) -> Library:
    try:
        load(name)
    except OSError as error:
        return Library(name, "", wanted_by, pip, required, str(error))
    found = _loaded_from(name, maps)
    if name.startswith("libcudnn."):
        found = f"{cudnn_version(load) or 'unknown version'}, {found}"
    return Library(name, found, wanted_by, pip, required)


def _loaded_from(name: str, maps: Path) -> str:
    """The file of a loaded library: its name may go on, as in ``libcudart.so.13.0.96``."""
    files = {line.split(maxsplit=5)[-1] for line in _read(maps).splitlines() if name in line}
    fitting = [file for file in sorted(files) if Path(file).name.startswith(name)]
    return fitting[0] if fitting else "loaded"


def visible(gpus: Sequence[Gpu], environment: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """The GPUs as CUDA counts them: those of the driver, chosen and ordered by CUDA_VISIBLE_DEVICES."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for part in filter(None, (part.strip() for part in chosen.split(","))):
        if part.startswith(("GPU-", "MIG-")):
            return tuple(gpus)  # names of GPUs or of their parts: whoever uses those knows the order
        if not (part.isdecimal() and int(part) < len(gpus)):
            break  # as CUDA does: whatever is no device, -1 for instance, hides all that follow
        found.append(gpus[int(part)])
    return tuple(found)
