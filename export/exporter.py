"""The whole way: checkpoint -> graph -> passes -> variants -> parity -> package."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from pairwire.server.clock import timestamp
from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.models.manifest import WIRE_ACTIVATIONS, WIRE_INPUT_TYPES, WIRE_KINDS
from pairwire.server.freed_memory import return_freed_memory
from pairwire.server.package import FORMAT, Package, read_package, write_manifest
from pairwire.server.tuning.choosing import Budget, choose
from pairwire.server.tuning.measuring import Measure
from pairwire.server.tuning.measuring import measure as measure_side_by_side
from pairwire.v1 import embedding_pb2, manifest_pb2, scoring_pb2

from . import passes
from .checkpoint import adapter, chat_templates
from .checkpoint.checkpoint import Checkpoint, open_checkpoint
from .checkpoint.consent import check_consent
from .checkpoint.files import check_files
from .checkpoint.source import find_source
from .checkpoint.task_adapters import check_tasks
from .config import SPEARMAN_LIMIT, ExportConfig, Limits, Precision, Sensitivity
from .errors import ParityFailed
from .figures import ParityReport
from .graph import export_graph, made_by
from .memory import check_memory
from .package import checked_target, staged, write_tokenizer
from .packed_variant import make_packed
from .parity.compare import Reference, compare
from .parity.report import as_lines, write_report
from .parity.witness import Witness
from .progress import Listener, Progress, explained, quiet_libraries, torch_cache
from .query_table import compare_queries, write_queries
from .recipes import DEFAULT, Candidates, Maker, Recipe, name_of
from .texts import Texts, calibration_texts, parity_texts, range_texts, read_texts
from .variant import MadeVariant, message_of
from .vector_ranges import Ranges, measure_ranges, range_prompts
from .vocabulary import check_vocabulary, servable

_TOOLS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optimum-onnx",
    "peft",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export."""

    package: Package
    parity: ParityReport | None
    """None where the export was run without parity."""


def export_checkpoint(
    config: ExportConfig, listener: Listener | None = None, *, measure: Measure = measure_side_by_side
) -> Exported:
    """Makes the package that the configuration describes.

    ``listener`` hears of every step; ``measure`` times recipes.

    Raises:
        ConfigInvalid: an option contradicts the checkpoint.
        ExportError: no package was made; the sentence says why. Nothing is left on disk.
    """
    with (
        explained("make the package", str(config.output)),
        checked_target(config.output, force=config.force),
        tempfile.TemporaryDirectory(prefix="pairwire-export-") as workspace,
        torch_cache(Path(workspace) / "torch"),
        quiet_libraries(),
    ):
        return _Export(config, Path(workspace), Progress(listener, config.checkpoint), measure).run()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A variant, and what it was chosen from."""

    made: MadeVariant
    tuning: manifest_pb2.Tuning | None = None


class _Export:
    """One run; each method is a step that a person sees."""

    def __init__(self, config: ExportConfig, workspace: Path, progress: Progress, measure: Measure) -> None:
        self._config = config
        self._workspace = workspace
        self._progress = progress
        self._measure = measure

    def run(self) -> Exported:
        config = self._config
        checkpoint = self._open()
        calibration, parity_inputs = self._texts(checkpoint)
        reference = self._reference(checkpoint, parity_inputs) if config.parity else None
        witness = self._witness(checkpoint, parity_inputs[0])
        ranges = self._ranges(checkpoint, calibration)
        checkpoint.release()  # before its graph is in memory
        plain, graph, reports = self._graph(checkpoint, witness)
        return_freed_memory()
        with staged(config.output) as stage:
            variants: list[_Chosen] = []
            for precision in map(Precision, config.precisions):
                name = f"{precision.provider}-{precision.value}"
                file = stage / f"{name}.onnx"
                if precision is Precision.FP16:
                    variants.append(self._packed(name, plain, checkpoint, file))
                else:
                    asked = Sensitivity(measure=config.sensitivity, keep_float=config.keep_float)
                    maker = Maker(graph, reports, precision, checkpoint, calibration, asked)
                    variants.append(self._variant(name, maker, reference, file))
                return_freed_memory()
            compared = self._queries(checkpoint, parity_inputs)
            report = None if reference is None else self._parity(reference, [each.made for each in variants])
            with self._progress.step("write the package") as step:
                parities = [None] * len(variants) if report is None else [each.summary for each in report.variants]
                messages = [
                    message_of(each.made, calibration=calibration, tuning=each.tuning, parity=parity)
                    for each, parity in zip(variants, parities, strict=True)
                ]
                manifest = self._manifest(checkpoint, messages)
                if ranges is not None:
                    manifest.int8_low.extend(ranges.low.tolist())
                    manifest.int8_high.extend(ranges.high.tolist())
                manifest.tokenizer_sha256 = write_tokenizer(checkpoint.tokenizer_json, stage)
                if checkpoint.queries is not None:
                    manifest.query_table.CopyFrom(write_queries(checkpoint.queries, compared, stage))
                write_manifest(manifest, stage)
                if report is not None:
                    found = {each.made.name: each.made.findings for each in variants}
                    write_report(report, stage, {name: each for name, each in found.items() if each is not None})
                read_package(stage)
                step.detail = f"{config.output} ({_megabytes(sum(f.stat().st_size for f in stage.iterdir()))})"
        return Exported(package=read_package(config.output), parity=report)

    def _open(self) -> Checkpoint:
        config = self._config
        with self._progress.step("find the checkpoint", reads_input=True) as step:
            source = find_source(config.checkpoint, config.revision)
            check_files(source.directory)
            check_tasks(source.directory)
            check_consent(source.directory, trusted=config.trust_remote_code)
            step.detail = f"{source.name}{'@' + source.revision[:12] if source.revision else ''}"
        kind = None if config.kind is None else ModelKind(config.kind)
        adapted = None
        if adapter.is_adapter(source.directory):
            with self._progress.step("find the adapter's base", reads_input=True) as step:
                adapted = adapter.lay_out(source.directory, self._workspace / "adapted", kind)
                step.detail = adapted.base_name
        if config.check_memory:
            check_memory(source.directory if adapted is None else adapted.directory, source.name)
        with self._progress.step("load it with sentence-transformers", reads_input=True) as step:
            checkpoint = open_checkpoint(
                source,
                source.directory if adapted is None else adapted.directory,
                kind=kind,
                max_length=config.max_length,
                trust_remote_code=config.trust_remote_code,
                adapted=adapted,
                asked=config.asked_score,
            )
            step.detail = _describe(checkpoint)
        for warning in [*checkpoint.warnings, *filter(None, [check_vocabulary(checkpoint)])]:
            self._progress.warn(warning)
        return checkpoint

    def _texts(self, checkpoint: Checkpoint) -> tuple[Texts, list[Texts]]:
        config = self._config
        calibration = (
            calibration_texts(checkpoint.kind)
            if config.calibration_data is None
            else read_texts(config.calibration_data, checkpoint.kind)
        )
        parity = [parity_texts(checkpoint.kind, checkpoint.rules.max_length)]
        if config.parity_data is not None:
            parity.append(read_texts(config.parity_data, checkpoint.kind))
        return servable(checkpoint, calibration), [servable(checkpoint, part) for part in parity]

    def _graph(
        self, checkpoint: Checkpoint, witness: Witness
    ) -> tuple[ModelProto, ModelProto, list[manifest_pb2.PassReport]]:
        """The graph as exported, where that is needed, and after the passes that every CPU variant takes."""
        with self._progress.step("export the graph", reads_input=True) as step:
            folder = self._workspace / "graph"
            folder.mkdir()
            graph = export_graph(checkpoint, folder, witness.check)
            step.detail = f"{len(graph.graph.node)} operators, by {made_by(graph)}"
        plain = graph
        if Precision.FP16.value in self._config.precisions:  # else nobody reads it, and it may have gigabytes
            plain = ModelProto()
            plain.CopyFrom(graph)
        reports = []
        for rewrite in passes.ALWAYS:
            with self._progress.step("rewrite it") as step:
                reports.append(rewrite(graph))
                step.detail = _describe_pass(reports[-1])
        return plain, graph, reports

    def _packed(self, name: str, plain: ModelProto, checkpoint: Checkpoint, file: Path) -> _Chosen:
        with self._progress.step(f"make {name}") as step:
            made = make_packed(plain, checkpoint, file)
            step.detail = _describe_variant(made)
        return _Chosen(made)

    def _variant(self, name: str, maker: Maker, reference: Reference | None, file: Path) -> _Chosen:
        recipe, made, tuning = (
            self._tuned(name, maker, reference, file)
            if self._config.tune and not maker.checkpoint.static
            else (DEFAULT, None, None)
        )
        with self._progress.step(f"make {name}") as step:
            variant = made or maker.make(recipe, file, step.advance)
            if made is None and recipe != DEFAULT and not self._holds(reference, variant):
                step.detail = f"{name_of(recipe)} fails parity; "
                variant = maker.make(DEFAULT, file, step.advance)
            maker.forget()
            step.detail += _describe_variant(variant)
        return _Chosen(variant, tuning)

    def _holds(self, reference: Reference | None, variant: MadeVariant) -> bool:
        """Whether the graph of a recipe that was chosen on a few layers scores like the checkpoint, too."""
        return reference is None or compare(reference, variant, self._limits).summary.passed

    def _tuned(
        self, name: str, maker: Maker, reference: Reference | None, file: Path
    ) -> tuple[Recipe, MadeVariant | None, manifest_pb2.Tuning]:
        """The fastest recipe, what it was chosen from, and its graph in ``file``, where whole graphs were measured."""
        with self._progress.step(f"tune {name}") as step:
            measured = maker.for_measuring()
            # Scores of a few layers are compared with nothing.
            judge = reference if measured is maker else None
            candidates = Candidates(measured, self._workspace, name=name, reference=judge, limits=self._limits)
            choice = choose(candidates.choices(), self._measure, Budget(self._config.tune_budget_s, step.advance))
            assert candidates.info is not None  # at least the start was opened
            tuning = choice.to_proto("recipe", candidates.info, candidates.shapes)
            variant = candidates.take(choice.best, file) if measured is maker else None
            candidates.close()
            step.detail = f"{len(choice.table)} recipes, {choice.chosen.name}: {choice.chosen.reason}"
            if measured.few is not None:
                where = f", measured with {measured.few.kept} of {measured.few.of} like layers"
                step.detail += where
                next(row for row in tuning.candidates if row.chosen).reason += where
        return choice.best, variant, tuning

    @property
    def _limits(self) -> Limits:
        given = self._config.parity_threshold
        return Limits(SPEARMAN_LIMIT if given is None else given, self._config.max_diff)

    def _reference(self, checkpoint: Checkpoint, texts: Sequence[Texts]) -> Reference:
        with self._progress.step("score the parity texts with sentence-transformers", reads_input=True) as step:
            reference = Reference(checkpoint, texts, step.advance)
            step.detail = f"{len(reference.inputs)} inputs"
        return reference

    def _witness(self, checkpoint: Checkpoint, texts: Texts) -> Witness:
        with self._progress.step("score a few texts to check the graph with", reads_input=True):
            return Witness(checkpoint, texts)

    def _queries(self, checkpoint: Checkpoint, texts: Sequence[Texts]) -> tuple[int, float]:
        """How many were compared, also with ``--no-parity``: it takes no time; and how far they are off."""
        if checkpoint.queries is None:
            return 0, 0.0
        with self._progress.step("compare the queries' table") as step:
            count, difference = compare_queries(checkpoint.queries, texts, checkpoint.default_prompt)
            step.detail = f"{count} queries, max difference {difference:.1e}"
        return count, difference

    def _parity(self, reference: Reference, variants: Sequence[MadeVariant]) -> ParityReport:
        limits, kind = self._limits, reference.checkpoint.kind
        results = []
        for variant in variants:
            with self._progress.step("compare") as step:
                results.append(compare(reference, variant, limits, step.advance))
                step.detail = as_lines(ParityReport(kind, limits.spearman, results[-1:]))[0]
        report = ParityReport(kind, limits.spearman, results)
        if not report.passed:
            raise ParityFailed(f"no package was made: {'; '.join(report.failures)}", report)
        return report

    def _ranges(self, checkpoint: Checkpoint, calibration: Texts) -> Ranges | None:
        """Of the vectors' numbers; None for what has no dense ones."""
        if checkpoint.kind is not ModelKind.BI_ENCODER:
            return None
        # The user's file is not read again: it may be a pipe.
        texts = range_texts() if self._config.calibration_data is None else calibration
        texts = servable(checkpoint, texts, range_prompts(checkpoint))
        with self._progress.step("measure how large its vectors' numbers get") as step:
            ranges = measure_ranges(checkpoint, texts)
            step.detail = f"{len(texts.inputs)} texts"
        return ranges

    def _manifest(self, checkpoint: Checkpoint, variants: Sequence[manifest_pb2.Variant]) -> manifest_pb2.ModelManifest:
        rules, own = checkpoint.rules, checkpoint.own_code
        return manifest_pb2.ModelManifest(
            format=FORMAT,
            name=self._config.name or self._config.output.resolve().name,
            kind=WIRE_KINDS[checkpoint.kind],
            architecture=checkpoint.architecture,
            source=checkpoint.source.name,
            revision=checkpoint.source.revision,
            created=timestamp(),
            max_length=rules.max_length,
            truncation_side=(
                manifest_pb2.TRUNCATION_SIDE_LEFT if rules.truncate_left else manifest_pb2.TRUNCATION_SIDE_RIGHT
            ),
            pad_token_id=rules.pad_token_id,
            pad_token_type_id=rules.pad_token_type_id,
            vocab_size=rules.vocab_size,
            template=chat_templates.message_of(rules.template),
            labels=checkpoint.labels,
            activation=WIRE_ACTIVATIONS[checkpoint.head.activation]
            if checkpoint.labels
            else scoring_pb2.ACTIVATION_UNSPECIFIED,
            score_scale=None if checkpoint.head.scale == 1 else checkpoint.head.scale,
            score_bias=checkpoint.head.bias,
            dimensions=checkpoint.dimensions,
            pooling=checkpoint.pooling,
            normalized=checkpoint.normalized,
            prompts=checkpoint.prompts,
            default_prompt_name=checkpoint.default_prompt_name,
            prompt_excluded=rules.prompt_excluded,
            empty_token_id=rules.empty_token_id,
            default_dimensions=checkpoint.default_dimensions,
            max_active_dims=checkpoint.max_active_dims,
            similarity=checkpoint.similarity,
            default_input_type=_input_type(checkpoint),
            variants=variants,
            remote_code=None if own is None else manifest_pb2.RemoteCode(sha256=own.sha256, files=own.files),
            tool_versions={tool: importlib.metadata.version(tool) for tool in _installed(_TOOLS)},
        )


def _input_type(checkpoint: Checkpoint) -> embedding_pb2.InputType.ValueType:
    if checkpoint.queries is None or checkpoint.queries.default is None:
        return embedding_pb2.INPUT_TYPE_UNSPECIFIED
    return WIRE_INPUT_TYPES[checkpoint.queries.default]


def _describe(checkpoint: Checkpoint) -> str:
    limit = f"at most {checkpoint.rules.max_length} tokens"
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        labels = "1 label" if len(checkpoint.labels) == 1 else f"{len(checkpoint.labels)} labels"
        head = checkpoint.head
        score = head.activation.value
        if (head.scale, head.bias) != (1, 0):
            score += f" of {head.scale:g} x logit" + (f" {head.bias:+g}" if head.bias else "")
        return f"{checkpoint.architecture} cross-encoder, {labels}, {score}, {limit}"
    if checkpoint.kind is ModelKind.SPARSE_ENCODER:
        how = ", ".join(checkpoint.pooling) + (", queries by a table" if checkpoint.queries is not None else "")
        return f"{checkpoint.architecture} sparse encoder, {checkpoint.dimensions} dimensions, {how}, {limit}"
    unit = ", unit length" if checkpoint.normalized else ""
    pooling = "+".join(checkpoint.pooling)
    return f"{checkpoint.architecture} bi-encoder, {checkpoint.dimensions} dimensions, {pooling} pooling{unit}, {limit}"


def _describe_variant(made: MadeVariant) -> str:
    return f"{_megabytes(made.size_bytes)}; {made.done}"


def _describe_pass(report: manifest_pb2.PassReport) -> str:
    places = "1 place" if report.rewritten == 1 else f"{report.rewritten} places"
    return f"{report.name}, {places}{' (' + report.reason + ')' if report.reason else ''}"


def _installed(names: Sequence[str]) -> list[str]:
    known: Callable[[str], bool] = lambda name: bool(list(importlib.metadata.distributions(name=name)))  # noqa: E731
    return [name for name in names if known(name)]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
