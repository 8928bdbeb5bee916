"""What the facts about a machine mean: a verdict, and a cause and a fix for everything that stands in the way.

The rule: what works is never called broken. Where the CUDA provider works, a missing library or an old driver is a
note; where nobody asked for a GPU (the CPU wheel, and no GPU that could be used), so is a driver that does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from pairwire.server.runtime.cuda_probe import PROVIDER
from pairwire.server.runtime.nvidia import INSTALL_DRIVER, OLDEST_DRIVER, SHARE_GPUS, Gpu, Library, visible

from .machine import Facts

CPU_WHEEL, GPU_WHEEL = "onnxruntime", "onnxruntime-gpu"
OLDEST_CAPABILITY = (8, 0)
"""Of ONNX Runtime's flash attention, which the packed graphs are made of."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know or change."""

    cause: str
    fix: str
    """What to do, with its commands between backticks."""
    broken: bool = True
    """A problem; otherwise a note."""

    def __str__(self) -> str:
        return f"{'problem' if self.broken else 'note'}: {self.cause}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The end of the examination."""

    verdict: str
    findings: tuple[Finding, ...]
    """Problems first, each kind in the order in which to work on them."""

    @property
    def healthy(self) -> bool:
        """Whether what is installed works."""
        return not any(finding.broken for finding in self.findings)


def diagnose(facts: Facts) -> Diagnosis:
    """The meaning of the facts; depends on nothing else."""
    found = [*_wheels(facts), *_driver(facts), *_gpus(facts), *_libraries(facts), *_visible(facts), *_exporter(facts)]
    if facts.cuda_works is False and not any(finding.broken for finding in found):
        found.append(
            Finding(f"{PROVIDER} does not start ({facts.cuda_fault})", "run `nvidia-smi` to see the GPU's state")
        )
    return Diagnosis(_verdict(facts), tuple(sorted(found, key=lambda finding: not finding.broken)))


def _usable(facts: Facts) -> list[Gpu]:
    return [gpu for gpu in facts.gpus if gpu.compute_capability >= OLDEST_CAPABILITY]


def _verdict(facts: Facts) -> str:
    if not facts.wheel or facts.import_fault:
        return "no model runs: ONNX Runtime cannot be used"
    if facts.wheel == CPU_WHEEL and _usable(facts):
        return "models run on the CPU, and the NVIDIA GPU is idle"
    if facts.wheel == CPU_WHEEL:
        seen = facts.gpus or facts.cards
        return f"no {'usable ' if seen else ''}NVIDIA GPU: models run on the CPU"
    if not facts.cuda_works:
        return "no model runs on an NVIDIA GPU"
    if facts.gpus and not _usable(facts):
        return "the CUDA provider works, but the GPU is too old for Pairwire's attention"
    return "models run on the NVIDIA GPU"


def _wheels(facts: Facts) -> Iterator[Finding]:
    extra = "gpu" if _usable(facts) or (not facts.gpus and facts.driver_fault and facts.cards) else "cpu"
    install = f"pip install 'pairwire[{extra}]'"
    if not facts.wheels:
        yield Finding(facts.wheel_fault, f"run `{install}`")
    elif not facts.wheel:
        yield Finding(facts.wheel_fault, f"run `pip uninstall -y {CPU_WHEEL} {GPU_WHEEL} && {install}`")
    elif facts.import_fault or (facts.wheel == GPU_WHEEL and PROVIDER not in facts.providers):
        fault = facts.import_fault or f"it has no {PROVIDER}"
        again = f"{facts.wheel}=={facts.wheels[facts.wheel]}"
        yield Finding(
            f"the files of {facts.wheel} are damaged, as after both wheels were installed ({fault})",
            f"run `pip install --force-reinstall --no-deps {again}`",
        )
    elif facts.wheel == CPU_WHEEL and _usable(facts):
        yield Finding(
            f"a GPU is here, but {CPU_WHEEL} is the wheel for the CPU",
            f"run `pip uninstall -y {CPU_WHEEL} && pip install 'pairwire[gpu]'`",
        )
    elif facts.wheel == GPU_WHEEL and not facts.gpus and not facts.cards and not facts.cuda_works:
        yield Finding(
            f"{GPU_WHEEL} is installed, but no NVIDIA GPU is here",
            f"run `pip uninstall -y {GPU_WHEEL} && pip install 'pairwire[cpu]'`, or {SHARE_GPUS}",
        )


def _driver(facts: Facts) -> Iterator[Finding]:
    wanted = facts.wheel == GPU_WHEEL and not facts.cuda_works
    if facts.driver_fault and (facts.wheel == GPU_WHEEL or facts.cards):
        yield Finding(facts.driver_fault, facts.driver_fix, broken=wanted)
    elif not facts.gpus and facts.cards:
        yield Finding(
            "NVIDIA cards are here, but the driver shows none", f"run `nvidia-smi`; {SHARE_GPUS}", broken=wanted
        )
    for gpu in _usable(facts)[:1]:
        if _major(gpu.driver) < OLDEST_DRIVER:
            yield Finding(
                f"driver {gpu.driver} is for CUDA {gpu.cuda_driver}; {GPU_WHEEL} has CUDA 13, which needs driver "
                f"{OLDEST_DRIVER} or newer",
                INSTALL_DRIVER,
                broken=not facts.cuda_works,
            )


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else OLDEST_DRIVER


def _gpus(facts: Facts) -> Iterator[Finding]:
    usable = _usable(facts)
    oldest = ".".join(map(str, OLDEST_CAPABILITY))
    for gpu in facts.gpus:
        if gpu not in usable:
            has = ".".join(map(str, gpu.compute_capability))
            fix = f"use a GPU of {oldest} or newer (A100, A10, RTX 30 and later)"
            if facts.wheel == GPU_WHEEL and not usable:
                fix += f", or the CPU: `pip uninstall -y {GPU_WHEEL} && pip install 'pairwire[cpu]'`"
            yield Finding(
                f"GPU {gpu.index}, {gpu.name}, has compute capability {has}; flash attention needs {oldest}",
                fix,
                broken=facts.wheel == GPU_WHEEL and not usable,
            )


def _exporter(facts: Facts) -> Iterator[Finding]:
    if facts.exporter_fault:
        fix = "run `pip uninstall -y optimum-onnx optimum`: transformers 5 is traced without it"
        yield Finding(f"{facts.exporter_fault}, so `pairwire export` may fail", fix, broken=False)


def _libraries(facts: Facts) -> Iterator[Finding]:
    """One finding a package: two libraries may be in one."""
    if not facts.gpus and not facts.cards:
        return  # what is missing is the GPU
    missing = [lib for lib in facts.libraries if not lib.found and lib.required and (lib.pip or facts.gpus)]
    for pip, group in groupby(sorted(missing, key=_package), key=_package):
        libraries = list(group)
        fix = (
            f"run `pip install '{pip}'`"
            if pip
            else "it comes with the driver; in a container, start it with "
            "`docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility`"
        )
        causes = ", ".join(f"{library.name} {library.problem}" for library in libraries)
        yield Finding(causes, fix, broken=not facts.cuda_works)


def _package(library: Library) -> str:
    return library.pip


def _visible(facts: Facts) -> Iterator[Finding]:
    """The driver does not read the variable, so it shows GPUs that CUDA has not."""
    if facts.visible_devices is None or not facts.gpus or facts.cuda_works is not False:
        return
    if not visible(facts.gpus, {"CUDA_VISIBLE_DEVICES": facts.visible_devices}):
        yield Finding(
            f"CUDA_VISIBLE_DEVICES is {facts.visible_devices!r}, which hides every GPU",
            "run `unset CUDA_VISIBLE_DEVICES`",
        )
