"""What can be chosen for a finished package, whose graphs stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairwire.v1 import manifest_pb2

from ..engine.config import BATCH_TOKENS
from ..engine.text.encoder import TextEncoder
from ..runtime.base import Float32Array, Runtime
from ..runtime.onnx_cpu import CpuOptions
from .choosing import Choices, Opened
from .measuring import Contender, Shape, work_of
from .probe import Probe, difference

OPTIMIZERS = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Fusions of ONNX Runtime that are a gain on one processor and a loss on another. The rest always is a gain."""
BATCH_LIMITS = (256, 512, 768, 1024)
"""Most tokens of a batch: more share the reading of the weights, fewer stay in a core's cache."""
_BATCH_LENGTHS = (16, 32, 128)
"""Tokens of the rows on which those are compared."""
FP32_LIMIT = 1e-5
INT8_LIMIT = 1e-3
"""Largest difference of a score that another way to run the same graph may make; int8 magnifies rounding."""

OpenRuntime = Callable[[Path, CpuOptions], Runtime]


@dataclass(frozen=True, slots=True)
class Subject:
    """A variant of a package, and what it is tried on."""

    variant: manifest_pb2.Variant
    graph: Path
    encoder: TextEncoder
    probe: Probe
    shapes: Sequence[Shape]
    open_runtime: OpenRuntime

    def runtime(self, disabled: Sequence[str]) -> Runtime:
        """The graph, loaded without those optimizers."""
        return self.open_runtime(self.graph, CpuOptions(disabled_optimizers=tuple(disabled)))

    @property
    def limit(self) -> float:
        """Largest difference from the package's own answers."""
        return FP32_LIMIT if self.variant.precision == "fp32" else INT8_LIMIT


def optimizer_choices(subject: Subject) -> Choices[tuple[str, ...]]:
    """Which optimizers are off when the graph is loaded. Each is turned over in its turn."""
    start = tuple(subject.variant.disabled_optimizers)
    expected: list[Float32Array] = []

    def open_(disabled: tuple[str, ...]) -> Opened:
        runtime = subject.runtime(disabled)
        answers = subject.probe.answers(runtime)
        if not expected:
            expected.append(answers)
        off = difference(answers, expected[0])
        work = work_of(subject.shapes, subject.encoder.blank, unpadded_from=subject.variant.unpadded_from)
        contender = Contender(_optimizers_name(disabled, start), runtime.run, work)
        return Opened(contender, off, lambda: _too_far(off, subject.limit), runtime.close)

    return Choices(
        start,
        [lambda best, name=name: [turned_over(best, name)] for name in OPTIMIZERS],  # type: ignore[misc]
        open_,
        lambda disabled: _optimizers_name(disabled, start),
    )


def turned_over(disabled: Sequence[str], optimizer: str) -> tuple[str, ...]:
    """Off becomes on, and on off."""
    if optimizer in disabled:
        return tuple(name for name in disabled if name != optimizer)
    return (*disabled, optimizer)


def batch_choices(subject: Subject, runtime: Runtime) -> Choices[int]:
    """Most tokens of a batch. Answers do not depend on it; they are not compared."""
    start = subject.variant.batch_tokens or BATCH_TOKENS
    lengths = batch_lengths(subject)

    def open_(limit: int) -> Opened:
        shapes = [Shape(max(1, limit // length), length) for length in lengths]
        work = work_of(shapes, subject.encoder.blank)
        return Opened(Contender(f"{limit} tokens", runtime.run, work), 0.0, lambda: "", lambda: None)

    return Choices(
        start,
        [lambda best: [limit for limit in BATCH_LIMITS if limit != best]],
        open_,
        lambda limit: f"{limit} tokens",
    )


def batch_lengths(subject: Subject) -> list[int]:
    """Lengths of the rows on which limits are compared: none that runs alone, at least one."""
    longest = subject.encoder.rules.max_length
    if subject.variant.unpadded_from:
        longest = min(longest, subject.variant.unpadded_from - 1)
    return sorted({min(length, longest) for length in _BATCH_LENGTHS})


def variant_choices(subjects: Sequence[Subject]) -> Choices[int]:
    """Which of several variants serves where none is asked for; the first does so far.

    All are measured, but only a float32 one may take its place: it answers more exactly, and on processors without
    8-bit products it is faster.
    """
    expected: list[Float32Array] = []

    def open_(at: int) -> Opened:
        subject = subjects[at]
        runtime = subject.runtime(subject.variant.disabled_optimizers)
        answers = subject.probe.answers(runtime)
        if not expected:
            expected.append(answers)
        work = work_of(subject.shapes, subject.encoder.blank, unpadded_from=subject.variant.unpadded_from)
        contender = Contender(subject.variant.name, runtime.run, work)
        refusal = (
            "" if subject.variant.precision == "fp32" else "faster, but less exact; --variant of the server asks for it"
        )
        return Opened(contender, difference(answers, expected[0]), lambda: refusal, runtime.close)

    def alternatives(best: int) -> list[int]:
        return [at for at in range(len(subjects)) if at != best]

    return Choices(0, [alternatives], open_, lambda at: subjects[at].variant.name)


def _optimizers_name(disabled: Sequence[str], start: Sequence[str]) -> str:
    changed = sorted(set(disabled) ^ set(start))
    return ", ".join(f"{name} {'off' if name in disabled else 'on'}" for name in changed) or "as packaged"


def _too_far(off: float, limit: float) -> str:
    # Written so that a NaN is refused.
    return "" if off <= limit else f"answers differ by {off:.1e}, allowed {limit:.0e}"
