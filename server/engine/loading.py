"""Opens model packages: verifies, loads the graph, measures what batches cost. The only reader of manifests here."""

from __future__ import annotations

import logging
from pathlib import Path

from pairwire.v1 import manifest_pb2, scoring_pb2

from ..errors import PackageInvalid, PairwireError
from ..package import read_package
from ..runtime.base import Runtime
from .buckets import Ladder
from .clock import Clock, SystemClock
from .config import EngineConfig
from .cost import CostTable, measure
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


def load_model(directory: Path | str, config: EngineConfig, clock: Clock | None = None) -> Model:
    """A package, verified, on ONNX Runtime's CPU provider, warm. Blocks for some seconds; run it off the event loop.

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
    try:
        encoder = TextEncoder.from_file(package.tokenizer_file, rules_of(package.manifest))
        runtime = OnnxCpuRuntime(graph, options)
        model = build_model(package.manifest, encoder, runtime, variant=variant.name, config=config, clock=clock)
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
    """A model of given parts: the seam for other runtimes and tests. Measures what batches cost, unless that is given.

    Raises:
        PackageInvalid: the manifest lacks what its kind needs.
        Whatever the runtime raises while it is measured.
    """
    config, clock = config or EngineConfig(), clock or SystemClock()
    kind = _KINDS.get(manifest.kind)
    if kind is None:
        raise PackageInvalid(f"{manifest.name}: kind {manifest.kind} is unknown; export the model again")
    activation = Activation.IDENTITY
    if kind is ModelKind.CROSS_ENCODER:
        if manifest.activation not in _ACTIVATIONS:
            raise PackageInvalid(
                f"{manifest.name}: activation {manifest.activation} is unknown; export the model again"
            )
        activation = _ACTIVATIONS[manifest.activation]
    unpadded_from = next((known.unpadded_from for known in manifest.variants if known.name == variant), 0)
    ladder = Ladder.up_to(encoder.rules.max_length, unpadded_from=unpadded_from)
    if costs is None:
        costs = measure(
            runtime,
            ladder,
            clock,
            batch_tokens=config.batch_tokens,
            budget_s=config.warmup_s,
            fill=encoder.blank,
        )
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


def rules_of(manifest: manifest_pb2.ModelManifest) -> TextRules:
    """The checkpoint's own rules for text."""
    return TextRules(
        max_length=manifest.max_length,
        pad_token_id=manifest.pad_token_id,
        pad_token_type_id=manifest.pad_token_type_id,
        truncate_left=manifest.truncation_side == manifest_pb2.TRUNCATION_SIDE_LEFT,
    )
