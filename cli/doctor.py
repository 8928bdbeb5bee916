"""`pairwire doctor`: why a model does not run on the NVIDIA GPU of this machine, and what to do about it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import arguments

if TYPE_CHECKING:
    from pairwire.server.runtime.nvidia import Gpu, Library

    from .machine import Facts

_DETAILS = """
Looks at ONNX Runtime's wheel, the driver, GPUs and libraries of CUDA, and opens a tiny session on the GPU; and at which
libraries of `pairwire export` are installed, and what they can export. Prints what it found, a verdict, and for every
problem its cause and what to run. Changes nothing. Exits with 0 where what is installed works, be it on the CPU, and
with 1 where something is broken."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "doctor", "tell why models do not run on the NVIDIA GPU", _DETAILS)
    arguments.add_json(parser, "print one object: facts, verdict, healthy, findings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Looks, prints, and fails where something is broken."""
    from .machine import look

    return report(look(), as_json=args.json)


def report(facts: Facts, *, as_json: bool) -> int:
    """Prints what the facts are and mean; returns the exit code."""
    import dataclasses
    import json

    from . import exits
    from .diagnosis import diagnose

    diagnosis = diagnose(facts)
    if as_json:
        told = {"facts": dataclasses.asdict(facts), "verdict": diagnosis.verdict, "healthy": diagnosis.healthy}
        findings = [dataclasses.asdict(finding) for finding in diagnosis.findings]
        # Not by `output`: it brings the client and grpc, and a doctor must not need what may be broken.
        print(json.dumps({**told, "findings": findings}))
    else:
        print("\n".join([*_lines(facts), "", f"verdict: {diagnosis.verdict}", *map(str, diagnosis.findings)]))
    return exits.OK if diagnosis.healthy else exits.FAILED


def _lines(facts: Facts) -> list[str]:
    """A line a fact, sorted by its name."""
    named = [
        ("AVX512-VNNI", _vnni(facts)),
        ("CPUs", f"{facts.cpus} usable, {facts.cpu}"),
        ("CUDA provider", _provider(facts)),
        *_gpus(facts),
        ("exporter", facts.exporter),
        *((library.name, _library(library)) for library in facts.libraries),
        ("onnxruntime", _wheel(facts)),
        ("pairwire", facts.pairwire),
        ("providers", ", ".join(facts.providers) or "unknown"),
        ("Python", f"{facts.python}, {facts.executable}"),
    ]
    width = max(len(name) for name, _ in named)
    # By the first word, so that GPU 10 stays behind GPU 9.
    return [f"{name.ljust(width)}  {text}" for name, text in sorted(named, key=lambda fact: fact[0].split()[0].lower())]


def _vnni(facts: Facts) -> str:
    if facts.avx512_vnni:
        return "yes"
    return "no, and none needed" if facts.int8_exact else "no: int8 models run on slower, exact kernels"


def _wheel(facts: Facts) -> str:
    return " and ".join(f"{name} {version}" for name, version in sorted(facts.wheels.items())) or "not installed"


def _provider(facts: Facts) -> str:
    if facts.cuda_works is None:
        return "not in this wheel" if facts.providers else "not tried"
    return "works" if facts.cuda_works else f"does not work: {facts.cuda_fault}"


def _gpus(facts: Facts) -> list[tuple[str, str]]:
    if facts.gpus:
        return [(f"GPU {gpu.index}", _gpu(gpu)) for gpu in facts.gpus]
    cards = f"{facts.cards} in the machine, but " if facts.cards else ""
    return [("GPUs", f"none: {cards}{facts.driver_fault or 'the driver shows none'}")]


def _gpu(gpu: Gpu) -> str:
    memory = f"{gpu.memory_bytes / 2**30:.1f} GiB of memory, {gpu.used_bytes / 2**30:.1f} used"
    capability = ".".join(map(str, gpu.compute_capability))
    return (
        f"{gpu.name}, {memory if gpu.memory_bytes else 'memory shared with the CPU'}, compute capability {capability}, "
        f"driver {gpu.driver}, CUDA {gpu.cuda_driver}"
    )


def _library(library: Library) -> str:
    need = "" if library.required else "optional, "
    if library.found:
        return f"{library.found} ({need}for {library.wanted_by})"
    pip = f": `pip install '{library.pip}'`" if library.pip else ""
    return f"{library.problem} ({need}for {library.wanted_by}){pip}"
