"""Given parts -> Model: what batches cost is measured here, or taken from an earlier start."""

from __future__ import annotations

import logging

from pairwire.v1 import manifest_pb2

from ...clock import Clock, SystemClock
from ...cpus import usable_cpus
from ...runtime.base import Runtime, RuntimeInfo
from ...runtime.packed import PackedRuntime
from ..batching.buckets import Ladder
from ..batching.cost import Costs, CostTable, confirm, measure, plausible, possible_measurements
from ..batching.cost_cache import CostCache, CostKey
from ..batching.planner import PackingPlanner
from ..config import EngineConfig
from ..text.encoder import TextEncoder
from ..watchdog import Watchdog
from .manifest import INPUT_TYPES, head_of, kind_of
from .model import Model
from .query_table import QueryTable
from .watched import watched

logger = logging.getLogger(__name__)


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
    watchdog: Watchdog | None = None,
    query_table: QueryTable | None = None,
) -> Model:
    """A model of given parts: the seam for other runtimes and tests.

    What batches cost is measured, unless it is given or kept from an earlier start. ``ladder`` and ``planner`` are the
    engine's own unless they are given. ``watchdog`` ends a measurement that hangs.

    Raises:
        PackageInvalid: the manifest lacks what its kind needs.
        Whatever the runtime raises while it is measured.
    """
    config, clock = config or EngineConfig(), clock or SystemClock()
    built = next((known for known in manifest.variants if known.name == variant), manifest_pb2.Variant())
    ladder = ladder or Ladder.up_to(encoder.rules.max_length, unpadded_from=built.unpadded_from)
    if costs is None:
        costs = _costs(built, encoder, watched(runtime, watchdog), ladder, config, clock)
    return Model(
        name=manifest.name,
        kind=kind_of(manifest),
        manifest=manifest,
        variant=variant,
        encoder=encoder,
        runtime=runtime,
        ladder=ladder,
        costs=costs,
        planner=planner,
        labels=tuple(manifest.labels),
        head=head_of(manifest),
        dimensions=manifest.dimensions,
        prompts=dict(manifest.prompts),
        default_prompt_name=manifest.default_prompt_name,
        default_dimensions=manifest.default_dimensions,
        max_active_dims=manifest.max_active_dims,
        query_table=query_table,
        default_input_type=INPUT_TYPES.get(manifest.default_input_type),
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
