"""`pairwire tune`: what a finished package runs fastest with on this processor. Needs nothing but the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pairwire.v1 import manifest_pb2

from ..engine.config import BATCH_TOKENS
from ..engine.models.manifest import head_of, rules_of
from ..engine.text.encoder import TextEncoder
from ..errors import ConfigInvalid, PackageInvalid, PairwireError
from ..package import Package, read_package
from ..runtime.base import RuntimeInfo
from ..runtime.onnx_cpu import OnnxCpuRuntime
from .candidates import (
    OpenRuntime,
    Subject,
    batch_choices,
    batch_lengths,
    optimizer_choices,
    variant_choices,
)
from .choosing import Choice, choose
from .measuring import Measure, shapes_up_to
from .measuring import measure as measure_side_by_side
from .probe import Probe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was chosen. Nothing is written yet."""

    package: Package
    """As it was read."""
    manifest: manifest_pb2.ModelManifest
    """As it should become, tables included."""
    changes: Sequence[str]
    """A sentence for each setting that becomes another one."""


def tune_package(
    directory: Path,
    *,
    variant: str = "",
    measure: Measure = measure_side_by_side,
    open_runtime: OpenRuntime = OnnxCpuRuntime,
    tell: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Tries what can be tried. ``variant`` limits it to one; ``tell`` hears a line about each question.

    Raises:
        PackageInvalid: missing, damaged, without such a variant, or a graph that cannot be run.
        ConfigInvalid: the variant is not for CPUs.
    """
    package = read_package(directory)
    manifest = manifest_pb2.ModelManifest()
    manifest.CopyFrom(package.manifest)
    if variant and package.variant(variant).provider != "cpu":
        raise ConfigInvalid(f"variant: {variant!r} is not for CPUs; only those can be tuned")
    package.variant(variant)  # raises where there is none
    chosen = [one for one in manifest.variants if one.provider == "cpu" and variant in ("", one.name)]
    try:
        return _Run(package, manifest, measure, open_runtime, tell).run(chosen)
    except PairwireError:
        raise
    except Exception as error:  # whatever tokenizers and onnxruntime raise; both use bare exception types of their own
        raise PackageInvalid(f"{directory}: cannot be loaded and run ({error}); export the model again") from error


def record(variant: manifest_pb2.Variant, tuning: manifest_pb2.Tuning) -> None:
    """Writes a choice into the variant, instead of an earlier one of the same subject."""
    kept = [one for one in variant.tunings if one.subject != tuning.subject]
    del variant.tunings[:]
    variant.tunings.extend([*kept, tuning])


class _Run:
    """One package; each method is a question."""

    def __init__(
        self,
        package: Package,
        manifest: manifest_pb2.ModelManifest,
        measure: Measure,
        open_runtime: OpenRuntime,
        tell: Callable[[str], None],
    ) -> None:
        self._package = package
        self._manifest = manifest
        self._measure = measure
        self._open_runtime = open_runtime
        self._tell = tell
        self._changes: list[str] = []
        self._encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(manifest))
        self._probe = Probe(
            self._encoder,
            head_of(manifest),
            pairs=manifest.kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER,
        )

    def run(self, variants: Sequence[manifest_pb2.Variant]) -> Tuned:
        subjects = [self._subject(variant) for variant in variants]
        for subject in subjects:
            self._optimizers(subject)
            self._batch_tokens(subject)
        if len(subjects) > 1:
            self._variant(subjects)
        return Tuned(self._package, self._manifest, self._changes)

    def _subject(self, variant: manifest_pb2.Variant) -> Subject:
        return Subject(
            variant=variant,
            graph=self._package.graph_file(variant),
            encoder=self._encoder,
            probe=self._probe,
            shapes=shapes_up_to(self._manifest.max_length),
            open_runtime=self._open_runtime,
        )

    def _optimizers(self, subject: Subject) -> None:
        choice = choose(optimizer_choices(subject), self._measure)
        variant = subject.variant
        record(variant, choice.to_proto("optimizers", self._info(subject), subject.shapes))
        if choice.changed:
            del variant.disabled_optimizers[:]
            variant.disabled_optimizers.extend(choice.best)
        self._told(variant, "optimizers", choice)

    def _batch_tokens(self, subject: Subject) -> None:
        variant = subject.variant
        runtime = subject.runtime(variant.disabled_optimizers)
        try:
            choice = choose(batch_choices(subject, runtime), self._measure)
        finally:
            runtime.close()
        columns = [f"rows of {length}" for length in batch_lengths(subject)]
        record(variant, choice.to_proto("batch_tokens", runtime.info, columns))
        if choice.changed:
            variant.batch_tokens = choice.best if choice.best != BATCH_TOKENS else 0
        self._told(variant, "batch_tokens", choice)

    def _variant(self, subjects: Sequence[Subject]) -> None:
        choice = choose(variant_choices(subjects), self._measure)
        first = subjects[choice.best].variant
        record(first, choice.to_proto("variant", self._info(subjects[choice.best]), subjects[0].shapes))
        self._told(first, "variant", choice)
        if choice.changed:
            ordered = [first, *(variant for variant in self._manifest.variants if variant is not first)]
            copies = [manifest_pb2.Variant.FromString(variant.SerializeToString()) for variant in ordered]
            del self._manifest.variants[:]
            self._manifest.variants.extend(copies)

    def _info(self, subject: Subject) -> RuntimeInfo:
        runtime = subject.runtime(subject.variant.disabled_optimizers)
        info = runtime.info
        runtime.close()
        return info

    def _told(self, variant: manifest_pb2.Variant, subject: str, choice: Choice[T]) -> None:
        line = f"{variant.name}, {subject}: {choice.chosen.name} ({choice.chosen.reason})"
        self._tell(line)
        if choice.changed:
            self._changes.append(line)
