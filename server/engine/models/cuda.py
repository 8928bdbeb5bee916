"""Opens a packed variant on an NVIDIA GPU: what is known of the device, the runtime, costs and planner for it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...clock import SystemClock
from ...errors import RuntimeMissing
from ..batching.buckets import Ladder
from ..batching.packing import FullestBatch, PackedCosts
from ..config import EngineConfig
from ..text.encoder import TextEncoder
from .building import build_model
from .model import Model

if TYPE_CHECKING:
    from pairwire.v1.manifest_pb2 import ModelManifest, Variant

    from ...runtime.cuda_session import CudaOptions
    from ...runtime.onnx_cuda import DeviceFacts, OnnxCudaRuntime

logger = logging.getLogger(__name__)


def open_on_gpu(
    manifest: ModelManifest, variant: Variant, graph: Path, encoder: TextEncoder, config: EngineConfig
) -> Model:
    """A model whose shapes have all been run and captured.

    Raises:
        RuntimeMissing: the GPU cannot be used.
        Whatever the runtime raises.
    """
    from ...runtime.attention_kernels import attention_kernels
    from ...runtime.cuda_session import CudaOptions
    from ...runtime.onnx_cuda import OnnxCudaRuntime

    options = CudaOptions(
        device_id=max(0, config.cuda_device),
        memory_limit_bytes=config.cuda_memory_bytes,
        capture=config.cuda_graphs,
        longest=encoder.rules.max_length,
        most_tokens=config.cuda_batch_token_limit(variant.batch_tokens),
        pad_token_id=encoder.rules.pad_token_id,
    )
    kernels = attention_kernels(graph, options)
    runtime = OnnxCudaRuntime(graph, options, facts=device_facts(options, kernels), now=SystemClock().monotonic)
    model = model_on(runtime, manifest, variant, encoder, config)
    found = runtime.info.cuda
    if found is not None:
        logger.info(
            "model %r on %s: %d shapes captured, %d by operators%s; attention %s; %d MiB",
            model.name,
            runtime.info.device,
            found.graphs,
            found.eager,
            f" ({found.eager_reason})" if found.eager_reason else "",
            ", ".join(found.attention_kernels) or "unknown",
            found.memory_bytes >> 20,
        )
    return model


def model_on(
    runtime: OnnxCudaRuntime, manifest: ModelManifest, variant: Variant, encoder: TextEncoder, config: EngineConfig
) -> Model:
    """A model of a packed runtime that is warm."""
    ladder = Ladder.unpadded(encoder.rules.max_length)
    return build_model(
        manifest,
        encoder,
        runtime,
        variant=variant.name,
        config=config,
        costs=PackedCosts(ladder, runtime.seconds()),
        ladder=ladder,
        planner=FullestBatch(runtime.shapes, config.latency_target_s),
    )


def device_facts(options: CudaOptions, kernels: tuple[str, ...]) -> DeviceFacts:
    """What the driver says of the device; as little as is known where it cannot be asked."""
    from ...runtime.nvidia import cudnn_version, find_gpus, used_by_process, visible
    from ...runtime.onnx_cuda import DeviceFacts

    def used_bytes() -> int:
        """Of this process, so that others that load at the same time do not count; of all where that is unknown."""
        try:
            gpu = visible(find_gpus())[options.device_id]
        except (RuntimeMissing, IndexError):
            return 0
        own = used_by_process(gpu.index, os.getpid())
        return gpu.used_bytes if own is None else own

    try:
        gpu = visible(find_gpus())[options.device_id]
    except (RuntimeMissing, IndexError) as error:
        why = "it lists no such device" if isinstance(error, IndexError) else error
        logger.warning("the driver cannot be asked about device %d: %s", options.device_id, why)
        return DeviceFacts(attention_kernels=kernels, cudnn=cudnn_version())
    return DeviceFacts(
        name=gpu.name,
        driver=gpu.driver,
        cudnn=cudnn_version(),
        attention_kernels=kernels,
        used_bytes=used_bytes,
    )
