"""What `pairwire serve` prints once it serves: a table of the models, and the line that programs read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.results import ModelInfo


def serving_line(host: str, port: int, metrics_port: int | None, http_port: int | None = None) -> str:
    """What programs read to learn the ports; metrics may be ``off``, and HTTP is named last, where it is on."""
    host = bracketed(host)
    metrics = "off" if metrics_port is None else f"on {host}:{metrics_port}"
    http = "" if http_port is None else f", HTTP on {host}:{http_port}"
    return f"pairwire: serving on {host}:{port}, metrics {metrics}{http}"


def bracketed(host: str) -> str:
    """The host as it stands before ``:PORT``: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def start_up_table(models: Iterable[ModelInfo]) -> str:
    """One line a model: name, kind, variant, provider, threads, lengths of the buckets; then one for each on a GPU."""
    models = list(models)
    rows: list[Sequence[str]] = [("model", "kind", "variant", "provider", "threads", "bucket lengths")]
    for info in models:
        lengths = info.bucket_lengths
        rows.append(
            (
                info.name,
                info.kind.value,
                info.variant,
                info.runtime.provider,
                f"{info.workers} x {info.runtime.intra_op_threads}",
                f"{len(lengths)}, from {lengths[0]} to {lengths[-1]}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(cuda_line(info) for info in models if info.runtime.cuda is not None)])


def cuda_line(info: ModelInfo) -> str:
    """What a model found on its GPU, in one line."""
    cuda = info.runtime.cuda
    assert cuda is not None
    kernels = Counter(cuda.attention_kernels)
    attention = ", ".join(f"{kernel} x {count}" for kernel, count in kernels.items()) or "unknown"
    eager = f", {cuda.eager} shapes by operators: {cuda.eager_reason}" if cuda.eager else ""
    return (
        f"{info.name}: {info.runtime.device} (device {cuda.device_id}), driver {cuda.driver or 'unknown'}, "
        f"CUDA {cuda.cuda}, cuDNN {cuda.cudnn or 'none'}; attention {attention}; {cuda.graphs} CUDA graphs{eager}; "
        f"{cuda.memory_bytes / 2**20:.0f} MiB"
    )
