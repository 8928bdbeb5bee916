"""What of NVIDIA is here, with the driver and the loader of a machine that has it, and of this one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from pairwire.server.errors import RuntimeMissing
from pairwire.server.runtime.nvidia import (
    Gpu,
    Library,
    count_cards,
    cudnn_version,
    find_gpus,
    find_libraries,
    preload_libraries,
    used_by_process,
    visible,
)

GIB = 1 << 30


class FakeNvml:
    """pynvml on a machine with two GPUs, the second of which has no memory of its own."""

    NVMLError = pynvml.NVMLError

    def __init__(self, fault: int = 0, at: str = "nvmlInit") -> None:
        self.fault, self.at = fault, at
        self.open = 0

    def _may_fail(self, name: str) -> None:
        if self.fault and name == self.at:
            raise pynvml.NVMLError(self.fault)

    def nvmlInit(self) -> None:
        self._may_fail("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        self._may_fail("nvmlSystemGetCudaDriverVersion_v2")
        return 13020

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._may_fail("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return ("NVIDIA H200", "NVIDIA GB10")[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        self._may_fail("nvmlDeviceGetMemoryInfo")
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=140 * GIB, used=GIB)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return ((9, 0), (12, 1))[handle]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        self._may_fail("nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=7 + handle, usedGpuMemory=GIB), SimpleNamespace(pid=9, usedGpuMemory=2 * GIB)]


def test_gpus_are_told_in_the_order_of_the_driver() -> None:
    nvml = FakeNvml()
    assert find_gpus(lambda: nvml) == (
        Gpu(0, "NVIDIA H200", 140 * GIB, GIB, (9, 0), "580.95.05", "13.2"),
        Gpu(1, "NVIDIA GB10", 0, 0, (12, 1), "580.95.05", "13.2"),
    )
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("fault", "at", "sentence"),
    [
        (
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            "nvmlInit",
            r"no NVIDIA driver is here.*`docker run --gpus all`.*apt-get",
        ),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "nvmlInit", r"module .* not loaded; run `sudo modprobe nvidia`"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "nvmlInit", r"replaced under the running kernel.*`sudo reboot`"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "nvmlInit", r"this user may not use.*`ls -l /dev/nvidia\*`"),
        (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, "nvmlSystemGetCudaDriverVersion_v2", r"too old.*nvidia-driver-580-open"),
        (pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "nvmlDeviceGetMemoryInfo", r"too old.*nvidia-driver-580-open"),
        (
            pynvml.NVML_ERROR_GPU_IS_LOST,
            "nvmlDeviceGetHandleByIndex",
            r"stopped answering.*`sudo dmesg \| grep -i xid`",
        ),
        (pynvml.NVML_ERROR_UNKNOWN, "nvmlInit", r"does not answer \(Unknown Error\); run `nvidia-smi`"),
    ],
)
def test_a_driver_that_cannot_be_asked_has_a_cause_and_a_command(fault: int, at: str, sentence: str) -> None:
    nvml = FakeNvml(fault, at)
    with pytest.raises(RuntimeMissing, match=sentence) as caught:
        find_gpus(lambda: nvml)
    assert str(caught.value) == f"{caught.value.cause}; {caught.value.fix}"
    assert nvml.open == 0


def test_without_nvidia_ml_py_it_says_what_to_install() -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'pynvml'", name="pynvml")

    with pytest.raises(RuntimeMissing, match=r"not installed; run `pip install 'nvidia-ml-py>=13'`"):
        find_gpus(missing)


def test_this_machine_has_gpus_or_a_reason() -> None:
    try:
        gpus = find_gpus()
    except RuntimeMissing as error:
        cause = error.cause
    else:
        cause = ", ".join(f"driver {gpu.driver}" for gpu in gpus)
    assert "driver" in cause


@dataclass(frozen=True)
class Device:
    vendor: str
    kind: str


@pytest.mark.parametrize(
    ("devices", "files", "cards"),
    [
        ([], [], 0),
        ([Device("0x10de", "0x030200"), Device("0x10de", "0x030000")], [], 2),
        ([Device("0x10de", "0x040300"), Device("0x1002", "0x030000")], [], 0),
        ([], ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], 2),
        ([Device("0x10de", "0x030200")], ["nvidia0"], 1),
    ],
)
def test_cards_are_counted_without_a_driver(
    tmp_path: Path, devices: list[Device], files: list[str], cards: int
) -> None:
    for number, device in enumerate(devices):
        folder = tmp_path / "pci" / f"0000:00:0{number}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{device.vendor}\n")
        (folder / "class").write_text(f"{device.kind}\n")
    dev = tmp_path / "dev"
    dev.mkdir()
    for file in files:
        (dev / file).touch()
    assert count_cards(tmp_path / "pci", dev) == cards


def loader(*absent: str, error: str = "") -> Callable[[str], object]:
    """A loader that has all libraries but these; cuDNN is 9.28.1."""

    def load(name: str) -> object:
        if name in absent:
            raise OSError(error or f"{name}: cannot open shared object file: No such file or directory")
        return SimpleNamespace(cudnnGetVersion=lambda: 92801)

    return load


def nothing() -> None:
    """No preloading."""


def libraries(load: Callable[[str], object], maps: Path = Path("/nowhere")) -> dict[str, Library]:
    return {library.name: library for library in find_libraries(preload=nothing, load=load, maps=maps)}


def test_the_libraries_are_those_of_cuda_13_by_name() -> None:
    found = libraries(loader())
    assert {name: library.pip for name, library in found.items()} == {
        "libcublas.so.13": "nvidia-cublas~=13.0",
        "libcublasLt.so.13": "nvidia-cublas~=13.0",
        "libcuda.so.1": "",
        "libcudart.so.13": "nvidia-cuda-runtime~=13.0",
        "libcudnn.so.9": "nvidia-cudnn-cu13~=9.0",
        "libcufft.so.12": "nvidia-cufft~=12.0",
        "libcurand.so.10": "nvidia-curand~=10.0",
        "libnvrtc.so.13": "nvidia-cuda-nvrtc~=13.0",
    }
    assert list(found) == sorted(found)
    assert not any(library.problem for library in found.values())
    assert "packed attention does not need it" in found["libcudnn.so.9"].wanted_by
    assert {name for name, library in found.items() if not library.required} == {
        "libcudnn.so.9",
        "libcufft.so.12",
        "libnvrtc.so.13",
    }


def test_a_library_is_told_with_its_file_and_cudnn_with_its_version(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 42    /opt/my cuda/libcudart.so.13.0.96\n"
        "7f02-7f03 r-xp 00000000 08:01 43    /opt/nvidia/libcudnn.so.9\n"
    )
    found = libraries(loader(), maps)
    assert found["libcudart.so.13"].found == "/opt/my cuda/libcudart.so.13.0.96"
    assert found["libcudnn.so.9"].found == "9.28.1, /opt/nvidia/libcudnn.so.9"
    assert found["libcurand.so.10"].found == "loaded"


def test_a_missing_library_is_not_a_broken_one() -> None:
    assert libraries(loader("libcurand.so.10"))["libcurand.so.10"].problem == "is missing"
    broken = libraries(loader("libcurand.so.10", error="libm.so.6: version `GLIBC_2.99' not found"))
    assert broken["libcurand.so.10"].problem == "cannot be loaded (libm.so.6: version `GLIBC_2.99' not found)"
    assert broken["libcurand.so.10"].found == ""


def test_pips_packages_are_made_known_before_anything_is_loaded() -> None:
    events: list[str] = []
    find_libraries(preload=lambda: events.append("preload"), load=lambda name: events.append(name))
    assert events[0] == "preload"
    assert "libcublas.so.13" in events


def test_what_onnxruntime_prints_while_it_preloads_is_not_output(capsys: pytest.CaptureFixture[str]) -> None:
    called: list[bool] = []

    def preload_dlls() -> None:
        called.append(True)
        print("Failed to load libcublasLt.so.13")

    preload_libraries(lambda: SimpleNamespace(preload_dlls=preload_dlls))
    assert called == [True]
    assert capsys.readouterr().out == ""


def test_a_broken_onnxruntime_preloads_nothing() -> None:
    preload_libraries(SimpleNamespace)


def test_the_version_of_cudnn_is_empty_without_it() -> None:
    assert cudnn_version(loader()) == "9.28.1"
    assert cudnn_version(loader("libcudnn.so.9")) == ""


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, "abcd"),
        ("0,1,2,3", "abcd"),
        ("2", "c"),
        ("3,1", "db"),
        (" 1 , 0 ", "ba"),
        ("", ""),
        ("1,9", "b"),
        ("GPU-8932f937,GPU-1", "abcd"),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(chosen: str | None, seen: str) -> None:
    gpus = [Gpu(index, name, GIB, 0, (9, 0), "580", "13.0") for index, name in enumerate("abcd")]
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert "".join(gpu.name for gpu in visible(gpus, environment)) == seen


def test_the_memory_of_a_process_is_told_by_the_driver() -> None:
    nvml = FakeNvml()
    assert [used_by_process(0, pid, lambda: nvml) for pid in (7, 9, 8)] == [GIB, 2 * GIB, None]
    assert used_by_process(1, 8, lambda: nvml) == GIB
    assert nvml.open == 0


@pytest.mark.parametrize("at", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetComputeRunningProcesses"])
def test_the_memory_of_a_process_is_not_known_where_the_driver_does_not_tell(at: str) -> None:
    nvml = FakeNvml(fault=pynvml.NVML_ERROR_NOT_SUPPORTED, at=at)
    assert used_by_process(0, 7, lambda: nvml) is None
    assert nvml.open == 0


def test_the_memory_of_a_process_is_not_known_without_nvidia_ml_py() -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'pynvml'")

    assert used_by_process(0, 7, missing) is None
