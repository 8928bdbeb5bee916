"""How a variant's graph is made: the choices that are open, and what each makes of one exported graph.

A pass that can only save work (`passes.ALWAYS`) is no choice. The rest is a `Recipe`: a default that was the fastest
where it was measured, and deviations in one respect, which `pairwire export` measures on the machine that it runs on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.heads import Head
from pairwire.server.package import sha256_of
from pairwire.server.runtime.base import Float32Array, RuntimeInfo
from pairwire.server.runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime
from pairwire.server.tuning.candidates import FP32_LIMIT, turned_over
from pairwire.server.tuning.choosing import Choices, NotApplicable, Opened
from pairwire.server.tuning.measuring import Contender, Shape, shapes_up_to, work_of
from pairwire.server.tuning.probe import Probe, difference
from pairwire.v1 import manifest_pb2

from . import storage
from .checkpoint.checkpoint import Checkpoint
from .config import Limits, Precision, Sensitivity
from .few_layers import FewLayers, few_layers
from .graph import input_names, output_name
from .int8.findings import Findings
from .int8.quantize import quantize
from .parity.compare import Reference, compare
from .passes import absorb_projections, fold_bias, sequence_major, unpadded_attention
from .passes.unpadded_attention import UNPADDED_FROM
from .progress import Advance, silent
from .texts import Input, Texts
from .variant import MadeVariant

SKIP_LAYER_NORM = "SkipLayerNormFusion"
"""The optimizer whose fused kernel is 4 to 7 times slower on a CPU than Add and LayerNormalization."""
_MEASURING_TEXTS = 24
"""Calibration texts, the shortest, of a graph that is only measured."""
THRESHOLDS = (0, 128, 256, 384)
"""Tokens from which rows run alone and unpadded; 0 for none."""
UNCHECKED_LIMIT = 0.05
"""Largest difference of an int8 score from the default recipe's, where there is no comparison with the checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What is open."""

    fold_bias: bool = False
    """Exact, but no gain that shows in a whole run, and the int8 demo model ranked no better with it."""
    sequence_major: bool = True
    unpadded_from: int = UNPADDED_FROM
    """0 for no unpadded attention."""
    disabled_optimizers: tuple[str, ...] = (SKIP_LAYER_NORM,)


DEFAULT = Recipe()


def name_of(recipe: Recipe) -> str:
    """How a recipe differs from the default one."""
    parts = []
    for field in ("fold_bias", "sequence_major"):
        if getattr(recipe, field) != getattr(DEFAULT, field):
            parts.append(f"{field} {'on' if getattr(recipe, field) else 'off'}")
    if recipe.unpadded_from != DEFAULT.unpadded_from:
        parts.append(f"unpadded_attention {f'from {recipe.unpadded_from}' if recipe.unpadded_from else 'off'}")
    changed = sorted(set(recipe.disabled_optimizers) ^ set(DEFAULT.disabled_optimizers))
    parts += [f"{name} {'off' if name in recipe.disabled_optimizers else 'on'}" for name in changed]
    return ", ".join(parts) or "default"


class Maker:
    """Makes the graphs of one variant."""

    def __init__(
        self,
        graph: ModelProto,
        reports: Sequence[manifest_pb2.PassReport],
        precision: Precision,
        checkpoint: Checkpoint,
        calibration: Texts,
        asked: Sensitivity | None = None,
    ) -> None:
        """``graph`` is the exported one after ``passes.ALWAYS``, ``reports`` what those said. Neither is changed.

        ``asked`` is about the layers of an int8 graph.
        """
        self.few: FewLayers | None = None
        """What ``graph`` is a part of, where it is one."""
        self.precision = precision
        self.checkpoint = checkpoint
        self._graph = graph
        self.reports = reports
        self._calibration = calibration
        self._asked = asked or Sensitivity()
        self._findings: dict[tuple[bool, bool], Findings | None] = {}
        self._last: tuple[tuple[bool, bool], ModelProto, list[manifest_pb2.PassReport]] | None = None

    def for_measuring(self) -> Maker:
        """Makes graphs that are as fast as this one's: those of a few layers where the model is large, else itself."""
        few = few_layers(self._graph)
        if few is None:
            return self
        # Ranges of a few texts: what is measured is time, which no range changes.
        texts = Texts(sorted(self._calibration.inputs, key=_size)[:_MEASURING_TEXTS], self._calibration.origin)
        maker = Maker(few.model, self.reports, self.precision, self.checkpoint, texts)
        maker.few = few
        return maker

    def make(self, recipe: Recipe, file: Path, advance: Advance = silent) -> MadeVariant:
        """Writes the graph."""
        graph, reports = self._products(recipe, advance)
        model = ModelProto()
        model.CopyFrom(graph)
        unpadded = []
        if recipe.unpadded_from:
            longest = self.checkpoint.rules.max_length
            unpadded = [unpadded_attention.apply(model, unpadded_from=recipe.unpadded_from, longest=longest)]
        storage.save(model, file)
        return MadeVariant(
            precision=self.precision,
            file=file,
            inputs=input_names(model),
            output=output_name(model),
            passes=[*self.reports, *reports, *unpadded],
            disabled_optimizers=recipe.disabled_optimizers,
            unpadded_from=recipe.unpadded_from if any(report.rewritten for report in unpadded) else 0,
            findings=self._findings.get((recipe.fold_bias, recipe.sequence_major)),
        )

    def forget(self) -> None:
        """Lets the last graph go, which a large model's export needs room for."""
        self._last = None

    def _products(self, recipe: Recipe, advance: Advance) -> tuple[ModelProto, list[manifest_pb2.PassReport]]:
        """The graph up to its quantised products; the last one is kept, as calibration takes seconds."""
        key = (recipe.fold_bias, recipe.sequence_major)
        if self._last is None or self._last[0] != key:
            model = ModelProto()
            model.CopyFrom(self._graph)
            reports = [fold_bias.apply(model)] if recipe.fold_bias else []
            if recipe.sequence_major:
                reports += [sequence_major.apply(model), absorb_projections.apply(model)]
            if self.precision is not Precision.FP32:
                # A layer costs in one recipe what it costs in another: that is measured once.
                known = next((found.layers for found in self._findings.values() if found is not None), ())
                done = quantize(
                    model,
                    self.precision,
                    self.checkpoint,
                    self._calibration,
                    self._asked,
                    known,
                    advance,
                    search=self.few is None,  # the same codes in every recipe: only what recipes differ in is timed
                )
                model, self._findings[key] = done.model, done.findings
                reports += done.reports
            self._last = (key, model, reports)
        return self._last[1], self._last[2]


@dataclass(frozen=True, slots=True)
class _Made:
    """The graph of a recipe, on disk."""

    variant: MadeVariant
    digests: tuple[str, ...]
    """Of its files: two recipes may make the same graph."""


class Candidates:
    """The recipes that one variant is tried with; ``choices`` is what `server.tuning.choosing.choose` takes."""

    def __init__(
        self, maker: Maker, workspace: Path, *, name: str, reference: Reference | None, limits: Limits
    ) -> None:
        """Graphs go into ``workspace`` while they are tried.

        Without a ``reference`` a recipe is only compared with the default one.
        """
        self._maker = maker
        self._workspace = workspace
        self._name = name
        self._reference = reference
        self._limits = limits
        checkpoint = maker.checkpoint
        cross = checkpoint.kind is ModelKind.CROSS_ENCODER
        self._encoder = checkpoint.text_encoder()
        self._probe = Probe(self._encoder, checkpoint.head if cross else Head(), pairs=cross)
        self._longest = checkpoint.rules.max_length
        self.shapes: Sequence[Shape] = shapes_up_to(self._longest)
        self.info: RuntimeInfo | None = None
        """What the graphs were run by; known once the first one was opened."""
        self._expected: Float32Array | None = None
        self._answers: dict[Recipe, Float32Array] = {}
        self._made: dict[Recipe, _Made] = {}

    def choices(self) -> Choices[Recipe]:
        """From the default recipe. What needs no other products comes first: those are made in no time."""
        return Choices(DEFAULT, (self._thresholds, _optimizers, _sequence_major, _fold_bias), self._open, name_of)

    def take(self, recipe: Recipe, file: Path) -> MadeVariant:
        """Moves the graph of a recipe that was tried to ``file``, and removes all others.

        A graph names the file of its weights, so ``file`` must have the name of the variant.
        """
        variant = self._made[recipe].variant
        for moved, to in zip(_files(variant.file), (file, storage.data_file(file)), strict=False):
            shutil.move(moved, to)
        self.close()
        return replace(variant, file=file)

    def close(self) -> None:
        """Removes all graphs that were tried."""
        self._made = {}
        for folder in self._workspace.glob(f"{self._name}-*"):
            shutil.rmtree(folder)

    def _thresholds(self, best: Recipe) -> list[Recipe]:
        if self._longest < min(filter(None, THRESHOLDS)):
            return []
        others = [tokens for tokens in THRESHOLDS if tokens != best.unpadded_from and tokens <= self._longest]
        return [replace(best, unpadded_from=tokens) for tokens in others]

    def _open(self, recipe: Recipe) -> Opened:
        if recipe not in self._made:
            self._made[recipe] = self._make(recipe)
        made = self._made[recipe]
        runtime = OnnxCpuRuntime(made.variant.file, CpuOptions(disabled_optimizers=recipe.disabled_optimizers))
        self.info = runtime.info
        if recipe not in self._answers:
            self._answers[recipe] = self._probe.answers(runtime)
        answers = self._answers[recipe]
        if self._expected is None:
            self._expected = answers
        off = difference(answers, self._expected)
        work = work_of(self.shapes, self._encoder.blank, unpadded_from=made.variant.unpadded_from)
        contender = Contender(name_of(recipe), runtime.run, work)
        return Opened(contender, off, lambda: self._refusal(off, made), runtime.close)

    def _make(self, recipe: Recipe) -> _Made:
        file = self._workspace / f"{self._name}-{len(self._made)}" / f"{self._name}.onnx"
        file.parent.mkdir(exist_ok=True)
        variant = self._maker.make(recipe, file)
        digests = tuple(map(sha256_of, _files(file)))
        for other, made in self._made.items():
            if made.digests == digests and other.disabled_optimizers == recipe.disabled_optimizers:
                shutil.rmtree(file.parent)
                raise NotApplicable(f"makes the same graph as {name_of(other)}")
        return _Made(variant, digests)

    def _refusal(self, off: float, made: _Made) -> str:
        """Why a recipe must not be used, although it is faster."""
        exact = self._maker.precision is Precision.FP32
        limit = FP32_LIMIT if exact else UNCHECKED_LIMIT
        # Int8 graphs of two recipes round differently; only the checkpoint can tell which of them is right.
        if (exact or self._reference is None) and not off <= limit:
            return f"answers differ by {off:.1e} from the default recipe's, allowed {limit:.0e}"
        if self._reference is not None:
            summary = compare(self._reference, made.variant, self._limits).summary
            if not summary.passed:
                return f"fails parity: max difference {summary.max_abs_diff:.1e}, Spearman {summary.spearman:.4f}"
        return ""


def _size(item: Input) -> int:
    return sum(map(len, item))


def _files(file: Path) -> list[Path]:
    """The graph, and the file of its weights where it has one."""
    return [each for each in (file, storage.data_file(file)) if each.exists()]


def _optimizers(best: Recipe) -> list[Recipe]:
    return [replace(best, disabled_optimizers=turned_over(best.disabled_optimizers, SKIP_LAYER_NORM))]


def _sequence_major(best: Recipe) -> list[Recipe]:
    return [replace(best, sequence_major=not best.sequence_major)]


def _fold_bias(best: Recipe) -> list[Recipe]:
    return [replace(best, fold_bias=not best.fold_bias)]
