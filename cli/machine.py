"""What `pairwire doctor` knows of a machine: facts only; `diagnosis` says what they mean."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pairwire.export import toolset
from pairwire.server.cpus import usable_cpus
from pairwire.server.errors import RuntimeMissing
from pairwire.server.runtime import nvidia, processor
from pairwire.server.runtime.cuda_probe import PROVIDER, cuda_fault
from pairwire.server.runtime.nvidia import Gpu, Library
from pairwire.server.runtime.wheels import WHEELS, check_wheels


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that was looked at. ``*_fault`` is the cause in a sentence, and empty where nothing is wrong."""

    pairwire: str
    """Version."""
    python: str
    """Version."""
    executable: str
    """The interpreter, and so the environment whose pip is meant."""
    wheels: Mapping[str, str]
    """Installed wheels of ONNX Runtime -> version."""
    wheel: str
    """The one that is installed, or empty: none or both."""
    wheel_fault: str
    providers: tuple[str, ...]
    """Those that the wheel was built with; they need not work."""
    import_fault: str
    """Of the module onnxruntime, where one wheel is installed."""
    cpus: int
    cpu: str
    avx512_vnni: bool
    int8_exact: bool
    """Whether int8 products keep their scores without slower kernels."""
    cards: int
    """NVIDIA cards in the machine, whether a driver shows them or not."""
    gpus: tuple[Gpu, ...]
    driver_fault: str
    driver_fix: str
    libraries: tuple[Library, ...]
    """Of CUDA; none are looked for where the wheel has no CUDA provider."""
    cuda_works: bool | None
    """None where it was not tried, because the wheel has no CUDA provider."""
    cuda_fault: str
    visible_devices: str | None
    """CUDA_VISIBLE_DEVICES."""
    exporter: str
    """Which libraries of `pairwire export` are installed, and what they can export."""
    exporter_fault: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Where facts come from; tests give others."""

    version_of: Callable[[str], str] = metadata.version
    import_ort: Callable[[], Any] = nvidia.import_ort
    find_gpus: Callable[[], tuple[Gpu, ...]] = nvidia.find_gpus
    find_libraries: Callable[[], tuple[Library, ...]] = nvidia.find_libraries
    count_cards: Callable[[], int] = nvidia.count_cards
    cuda_fault: Callable[[Any], str] = cuda_fault
    environment: Mapping[str, str] | None = None
    """None: that of the process."""


def look(sources: Sources | None = None) -> Facts:
    """Looks at everything once; takes a second or two, and some hundred MB on a GPU meanwhile."""
    sources = sources or Sources()
    wheels = {name: version for name in WHEELS if (version := _version(name, sources))}
    wheel, wheel_fault = _wheel(sources)
    providers, import_fault, ort = _providers(wheel, sources)
    gpus, driver_fault, driver_fix = _gpus(sources)
    # First the libraries: finding them makes pip's packages known to the loader, which the provider then needs.
    libraries = sources.find_libraries() if PROVIDER in providers else ()
    fault = sources.cuda_fault(ort) if PROVIDER in providers else ""
    tools = toolset.look(sources.version_of)
    environment = os.environ if sources.environment is None else sources.environment
    return Facts(
        pairwire=_version("pairwire", sources) or "not installed by pip",
        python=platform.python_version(),
        executable=sys.executable,
        wheels=wheels,
        wheel=wheel,
        wheel_fault=wheel_fault,
        providers=providers,
        import_fault=import_fault,
        cpus=usable_cpus(),
        cpu=processor.processor_name(),
        avx512_vnni="avx512_vnni" in processor.processor_flags().split(),
        int8_exact=not processor.int8_saturates(platform.machine(), processor.processor_flags()),
        cards=sources.count_cards(),
        gpus=gpus,
        driver_fault=driver_fault,
        driver_fix=driver_fix,
        libraries=libraries,
        cuda_works=not fault if PROVIDER in providers else None,
        cuda_fault=fault,
        visible_devices=environment.get("CUDA_VISIBLE_DEVICES"),
        exporter=str(tools),
        exporter_fault=tools.problem,
    )


def _version(name: str, sources: Sources) -> str:
    try:
        return sources.version_of(name)
    except metadata.PackageNotFoundError:
        return ""


def _wheel(sources: Sources) -> tuple[str, str]:
    try:
        return check_wheels(sources.version_of), ""
    except RuntimeMissing as error:
        return "", error.cause


def _providers(wheel: str, sources: Sources) -> tuple[tuple[str, ...], str, Any]:
    """Providers, why there are none, and the module. Not asked for where none or both of the wheels are installed."""
    if not wheel:
        return (), "", None
    try:
        ort = sources.import_ort()
        return tuple(sorted(ort.get_available_providers())), "", ort
    except Exception as error:  # half-removed wheels fail in many ways: no module, no attribute, no library
        return (), str(error) or type(error).__name__, None


def _gpus(sources: Sources) -> tuple[tuple[Gpu, ...], str, str]:
    try:
        return sources.find_gpus(), "", ""
    except RuntimeMissing as error:
        return (), error.cause, error.fix
