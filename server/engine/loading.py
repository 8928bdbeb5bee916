"""Opens model packages: verifies, loads the graph, measures what batches cost. The only reader of manifests here."""

from __future__ import annotations

import logging
from pathlib import Path

from pairwire.v1 import manifest_pb2, scoring_pb2

from ..cpus import usable_cpus
from ..errors import ConfigInvalid, PackageInvalid, PairwireError
from ..package import Package, read_package
from ..runtime.base import PackedRuntime, Runtime, RuntimeInfo
from .buckets import Ladder
from .clock import Clock, SystemClock, ThreadClock
from .config import EngineConfig
from .cost import Costs, CostTable, confirm, measure, plausible, possible_measurements
from .cost_cache import CostCache, CostKey
from .heads import Activation
from .model import Model
from .planner import PackingPlanner
from .rendering import PairTemplate, Slot
from .results import ModelKind
from .text import TextEncoder, TextRules
from .vocabulary import embedding_rows

logger = logging.getLogger(__name__)

_KINDS = {
    manifest_pb2.MODEL_KIND_CROSS_ENCODER: ModelKind.CROSS_ENCODER,
    manifest_pb2.MODEL_KIND_BI_ENCODER: ModelKind.BI_ENCODER,
    manifest_pb2.MODEL_KIND_SPARSE_ENCODER: ModelKind.SPARSE_ENCODER,
}
_ACTIVATIONS = {
    scoring_pb2.ACTIVATION_IDENTITY: Activation.IDENTITY,
    scoring_pb2.ACTIVATION_SIGMOID: Activation.SIGMOID,
    scoring_pb2.ACTIVATION_SOFTMAX: Activation.SOFTMAX,
}
_SLOTS = {
    manifest_pb2.TEMPLATE_SLOT_PROMPT: Slot.PROMPT,
    manifest_pb2.TEMPLATE_SLOT_FIRST: Slot.FIRST,
    manifest_pb2.TEMPLATE_SLOT_SECOND: Slot.SECOND,
}


def load_model(directory: Path | str, config: EngineConfig, timer: Clock | None = None) -> Model:
    """A package, verified, on the provider that the settings and the wheel of onnxruntime say, warm.

    Blocks for some seconds; run it off the event loop. On a CPU costs are measured in the thread's CPU time where a run
    has one thread, unless ``timer`` says otherwise: on a busy machine the wall clock makes long runs, which are
    interrupted more often, look dearer than they are.

    Raises:
        PackageInvalid: missing, damaged, or a graph that cannot be loaded or run.
        RuntimeMissing: neither or both onnxruntime wheels are installed, or no GPU can be used where one was asked for.
    """
    from ..runtime.wheels import check_wheels

    wheel = check_wheels()
    package = read_package(directory)
    variant = choose_variant(package, config, wheel)
    graph = package.graph_file(variant)
    try:
        encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(package.manifest))
        if variant.provider == "cuda":
            from .cuda import open_on_gpu

            model = open_on_gpu(package.manifest, variant, graph, encoder, config)
        else:
            model = _open_on_cpu(package.manifest, variant, graph, encoder, config, timer)
        model.probe()
    except PairwireError:
        raise
    except Exception as error:  # whatever tokenizers and onnxruntime raise; both use bare exception types of their own
        raise PackageInvalid(f"{graph}: cannot be loaded and run ({error}); export the model again") from error
    logger.info("loaded model %r, variant %s, from %s", model.name, model.variant, directory)
    return model


def choose_variant(package: Package, config: EngineConfig, wheel: str) -> manifest_pb2.Variant:
    """The variant that is asked for by name, or the best one for the provider.

    Raises:
        PackageInvalid: the package has none.
        ConfigInvalid: a variant of another provider is asked for than the provider.
    """
    if config.variant:
        variant = package.variant(config.variant)
        if config.provider not in ("auto", variant.provider):
            raise ConfigInvalid(f"variant: {variant.name} runs on {variant.provider}, provider says {config.provider}")
        return variant
    provider = config.provider
    if provider == "auto":
        has_cuda = any(variant.provider == "cuda" for variant in package.manifest.variants)
        provider = "cuda" if wheel == "onnxruntime-gpu" and has_cuda else "cpu"
        if wheel == "onnxruntime-gpu" and not has_cuda:
            logger.warning(
                "%s has no variant for a GPU and runs on the CPU; export it with --precision fp16", package.directory
            )
    return package.variant(provider=provider)


def _open_on_cpu(
    manifest: manifest_pb2.ModelManifest,
    variant: manifest_pb2.Variant,
    graph: Path,
    encoder: TextEncoder,
    config: EngineConfig,
    timer: Clock | None,
) -> Model:
    from ..runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime

    options = CpuOptions(
        intra_op_threads=config.intra_op_threads, disabled_optimizers=tuple(variant.disabled_optimizers)
    )
    if timer is None:
        timer = ThreadClock() if config.intra_op_threads == 1 else SystemClock()
    runtime = OnnxCpuRuntime(graph, options)
    if not manifest.vocab_size:  # an older package does not say
        encoder = encoder.with_rows(
            embedding_rows(lambda id: runtime.run(encoder.blank(1, 1, id)), encoder.vocabulary.rows)
        )
    return build_model(manifest, encoder, runtime, variant=variant.name, config=config, clock=timer)


def build_model(
    manifest: manifest_pb2.ModelManifest,
    encoder: TextEncoder,
    runtime: Runtime | PackedRuntime,
    *,
    variant: str = "",
    config: EngineConfig | None = None,
    clock: Clock | None = None,
    costs: Costs | None = None,
    ladder: Ladder | None = None,
    planner: PackingPlanner | None = None,
) -> Model:
    """A model of given parts: the seam for other runtimes and tests.

    What batches cost is measured, unless it is given or kept from an earlier start. ``ladder`` and ``planner`` are the
    engine's own unless they are given.

    Raises:
        PackageInvalid: the manifest lacks what its kind needs.
        Whatever the runtime raises while it is measured.
    """
    config, clock = config or EngineConfig(), clock or SystemClock()
    kind = _KINDS.get(manifest.kind)
    if kind is None:
        raise PackageInvalid(f"{manifest.name}: kind {manifest.kind} is unknown; export the model again")
    activation = activation_of(manifest)
    built = next((known for known in manifest.variants if known.name == variant), manifest_pb2.Variant())
    ladder = ladder or Ladder.up_to(encoder.rules.max_length, unpadded_from=built.unpadded_from)
    if costs is None:
        costs = _costs(built, encoder, runtime, ladder, config, clock)
    return Model(
        name=manifest.name,
        kind=kind,
        manifest=manifest,
        variant=variant,
        encoder=encoder,
        runtime=runtime,
        ladder=ladder,
        costs=costs,
        planner=planner,
        labels=tuple(manifest.labels),
        activation=activation,
        dimensions=manifest.dimensions,
        prompts=dict(manifest.prompts),
        default_prompt_name=manifest.default_prompt_name,
        default_dimensions=manifest.default_dimensions,
        max_active_dims=manifest.max_active_dims,
    )


def _costs(
    variant: manifest_pb2.Variant,
    encoder: TextEncoder,
    runtime: Runtime,
    ladder: Ladder,
    config: EngineConfig,
    clock: Clock,
) -> CostTable:
    """Kept ones where they can be trusted, else measured and kept. Either way the largest batch has been run."""
    cache = _cache(variant, runtime.info, ladder, config)
    batch_tokens, fill = config.batch_token_limit(variant.batch_tokens), encoder.blank
    known = cache.read(possible_measurements(ladder, batch_tokens)) if cache else None
    if cache and known:
        costs = CostTable(ladder, known, batch_tokens=batch_tokens)
        ratio = confirm(costs, runtime, ladder, clock, batch_tokens=batch_tokens, fill=fill)
        if plausible(ratio):
            logger.debug("measured costs are taken from %s", cache.file)
            return costs
        cache.distrust(f"the largest batch takes {ratio:.2g} times what it says")
    costs = measure(runtime, ladder, clock, batch_tokens=batch_tokens, budget_s=config.warmup_s, fill=fill)
    if cache:
        cache.write(costs.measured)
    return costs


def _cache(variant: manifest_pb2.Variant, info: RuntimeInfo, ladder: Ladder, config: EngineConfig) -> CostCache | None:
    """None where costs are not kept: turned off, or a graph that no package vouches for."""
    directory = config.cost_directory()
    if directory is None or not variant.sha256:
        return None
    key = CostKey(
        graph_sha256=variant.sha256,
        disabled_optimizers=tuple(variant.disabled_optimizers),
        runtime_version=info.version,
        provider=info.provider,
        device=info.device,
        intra_op_threads=info.intra_op_threads,
        workers=config.worker_count(),
        usable_cpus=usable_cpus(),
        batch_tokens=config.batch_token_limit(variant.batch_tokens),
        lengths=ladder.lengths,
        warmup_s=config.warmup_s,
    )
    return CostCache(directory, key)


def activation_of(manifest: manifest_pb2.ModelManifest) -> Activation:
    """What turns the graph's output into scores; the identity for bi-encoders and sparse encoders.

    Raises:
        PackageInvalid: the manifest names one that this version does not know.
    """
    if manifest.kind != manifest_pb2.MODEL_KIND_CROSS_ENCODER:
        return Activation.IDENTITY
    if manifest.activation not in _ACTIVATIONS:
        raise PackageInvalid(f"{manifest.name}: activation {manifest.activation} is unknown; export the model again")
    return _ACTIVATIONS[manifest.activation]


def rules_of(manifest: manifest_pb2.ModelManifest) -> TextRules:
    """The checkpoint's own rules for text.

    Raises:
        PackageInvalid: the manifest has a text template that this version does not know.
    """
    return TextRules(
        max_length=manifest.max_length,
        pad_token_id=manifest.pad_token_id,
        pad_token_type_id=manifest.pad_token_type_id,
        truncate_left=manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT,
        template=_template(manifest.template) if manifest.HasField("template") else None,
        prompt_excluded=manifest.prompt_excluded,
        vocab_size=manifest.vocab_size,
    )


def _template(message: manifest_pb2.TextTemplate) -> PairTemplate:
    parts: list[str | Slot] = []
    for part in message.parts:
        if part.WhichOneof("part") == "literal":
            parts.append(part.literal)
        elif part.slot in _SLOTS:
            parts.append(_SLOTS[part.slot])
        else:
            raise PackageInvalid(f"template slot {part.slot} is unknown; export the model again")
    try:
        return PairTemplate(tuple(parts), message.default_prompt, tuple(message.suffix_ids))
    except ValueError as error:
        raise PackageInvalid(f"template: {error}; export the model again") from error
