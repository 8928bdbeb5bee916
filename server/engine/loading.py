"""Opens model packages: verifies, loads the graph, measures what batches cost. The only reader of manifests here."""

from __future__ import annotations

import logging
from pathlib import Path

from pairwire.v1 import manifest_pb2, scoring_pb2

from ..cpus import usable_cpus
from ..errors import PackageInvalid, PairwireError
from ..package import read_package
from ..runtime.base import Runtime, RuntimeInfo
from .buckets import Ladder
from .clock import Clock, SystemClock, ThreadClock
from .config import EngineConfig
from .cost import CostTable, confirm, measure, plausible, possible_measurements
from .cost_cache import CostCache, CostKey
from .heads import Activation
from .model import Model
from .results import ModelKind
from .text import TextEncoder, TextRules

logger = logging.getLogger(__name__)

_KINDS = {
    manifest_pb2.MODEL_KIND_CROSS_ENCODER: ModelKind.CROSS_ENCODER,
    manifest_pb2.MODEL_KIND_BI_ENCODER: ModelKind.BI_ENCODER,
}
_ACTIVATIONS = {
    scoring_pb2.ACTIVATION_IDENTITY: Activation.IDENTITY,
    scoring_pb2.ACTIVATION_SIGMOID: Activation.SIGMOID,
    scoring_pb2.ACTIVATION_SOFTMAX: Activation.SOFTMAX,
}


def load_model(directory: Path | str, config: EngineConfig, timer: Clock | None = None) -> Model:
    """A package, verified, on ONNX Runtime's CPU provider, warm. Blocks for some seconds; run it off the event loop.

    Costs are measured in the thread's CPU time where a run has one thread, unless ``timer`` says otherwise: on a busy
    machine the wall clock makes long runs, which are interrupted more often, look dearer than they are.

    Raises:
        PackageInvalid: missing, damaged, or a graph that cannot be loaded or run.
        RuntimeMissing: neither or both onnxruntime wheels are installed.
    """
    from ..runtime.wheels import check_wheels

    check_wheels()
    from ..runtime.onnx_cpu import CpuOptions, OnnxCpuRuntime

    package = read_package(directory)
    variant = package.variant(config.variant)
    graph = package.graph_file(variant)
    options = CpuOptions(
        intra_op_threads=config.intra_op_threads, disabled_optimizers=tuple(variant.disabled_optimizers)
    )
    if timer is None:
        timer = ThreadClock() if config.intra_op_threads == 1 else SystemClock()
    try:
        encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(package.manifest))
        runtime = OnnxCpuRuntime(graph, options)
        model = build_model(package.manifest, encoder, runtime, variant=variant.name, config=config, clock=timer)
        model.probe()
    except PairwireError:
        raise
    except Exception as error:  # whatever tokenizers and onnxruntime raise; both use bare exception types of their own
        raise PackageInvalid(f"{graph}: cannot be loaded and run ({error}); export the model again") from error
    logger.info("loaded model %r, variant %s, from %s", model.name, model.variant, directory)
    return model


def build_model(
    manifest: manifest_pb2.ModelManifest,
    encoder: TextEncoder,
    runtime: Runtime,
    *,
    variant: str = "",
    config: EngineConfig | None = None,
    clock: Clock | None = None,
    costs: CostTable | None = None,
) -> Model:
    """A model of given parts: the seam for other runtimes and tests.

    What batches cost is measured, unless it is given or kept from an earlier start.

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
    ladder = Ladder.up_to(encoder.rules.max_length, unpadded_from=built.unpadded_from)
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
        labels=tuple(manifest.labels),
        activation=activation,
        dimensions=manifest.dimensions,
        prompts=dict(manifest.prompts),
        default_prompt_name=manifest.default_prompt_name,
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
    """What turns the graph's output into scores; the identity for bi-encoders.

    Raises:
        PackageInvalid: the manifest names one that this version does not know.
    """
    if manifest.kind != manifest_pb2.MODEL_KIND_CROSS_ENCODER:
        return Activation.IDENTITY
    if manifest.activation not in _ACTIVATIONS:
        raise PackageInvalid(f"{manifest.name}: activation {manifest.activation} is unknown; export the model again")
    return _ACTIVATIONS[manifest.activation]


def rules_of(manifest: manifest_pb2.ModelManifest) -> TextRules:
    """The checkpoint's own rules for text."""
    return TextRules(
        max_length=manifest.max_length,
        pad_token_id=manifest.pad_token_id,
        pad_token_type_id=manifest.pad_token_type_id,
        truncate_left=manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT,
    )
