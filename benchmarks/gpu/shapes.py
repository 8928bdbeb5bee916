"""What a run of each shape takes, replayed as a CUDA graph and operator by operator; upload and download included."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.package import read_package
from pairwire.server.runtime.cuda_session import CudaOptions
from pairwire.server.runtime.onnx_cuda import OnnxCudaRuntime

COLUMNS = ("tokens", "longest_row", "rows", "graph_us", "eager_us", "eager_to_graph", "mtokens_per_s")


def measure_shapes(package: Path, most_tokens: int) -> list[dict[str, object]]:
    """A row for each shape: the fastest of three runs of full rows."""
    found = read_package(package)
    graph, rules = found.graph_file(found.variant(provider="cuda")), rules_of(found.manifest)
    options = CudaOptions(longest=rules.max_length, most_tokens=most_tokens, pad_token_id=rules.pad_token_id)
    seconds = []
    for capture in (True, False):
        runtime = OnnxCudaRuntime(graph, dataclasses.replace(options, capture=capture), now=time.perf_counter)
        seconds.append(runtime.seconds())
        runtime.close()
    captured, eager = seconds
    return [
        {
            "part": "shapes",
            "tokens": shape.tokens,
            "longest_row": shape.length,
            "rows": shape.rows,
            "graph_us": took * 1e6,
            "eager_us": eager[shape] * 1e6,
            "eager_to_graph": eager[shape] / took,
            "mtokens_per_s": shape.tokens / took / 1e6,
        }
        for shape, took in sorted(captured.items())
    ]
