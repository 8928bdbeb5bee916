"""Checkpoint -> plain ONNX graph, through optimum's exporter and ONNX Runtime's basic optimisations.

The result is standard ONNX: int64 [rows, length] inputs, one float32 output, constants as initializers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import ModelProto

from .checkpoint import Checkpoint, load_reference
from .config import Kind
from .errors import CheckpointUnsupported

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What the server can feed."""
OUTPUTS = {
    Kind.CROSS_ENCODER: "logits",
    Kind.BI_ENCODER: "sentence_embedding",
    Kind.SPARSE_ENCODER: "sentence_embedding",
}
_LARGEST_BYTES = 2**31 - 2**20
"""A protobuf message, and so an ONNX file, ends at 2 GiB."""


def export_graph(checkpoint: Checkpoint, workspace: Path) -> ModelProto:
    """The graph of the checkpoint, before any rewrite of ours. ``workspace`` is an existing directory for files.

    Raises:
        CheckpointUnsupported: optimum cannot export it, or the graph asks for inputs that the server does not have.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    model, task = _exportable(checkpoint)
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    if size > _LARGEST_BYTES:
        raise CheckpointUnsupported(
            f"{size / 2**30:.1f} GiB of float32 weights; a graph of more than 2 GiB is not exported yet"
        )
    try:
        onnx_export_from_model(model, output=workspace, task=task, do_validation=False, no_post_process=True)
    except (ValueError, NotImplementedError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointUnsupported(f"{checkpoint.architecture}: optimum cannot export it: {reason}") from error
    graph = onnx.load(workspace / "model.onnx")
    _keep_output(graph, OUTPUTS[checkpoint.kind])
    _check_inputs(graph, checkpoint)
    return _basic(graph, workspace)


def output_name(model: ModelProto) -> str:
    """The one output."""
    return str(model.graph.output[0].name)


def input_names(model: ModelProto) -> list[str]:
    """The inputs, in order."""
    return [value.name for value in model.graph.input]


def _exportable(checkpoint: Checkpoint) -> tuple[Any, str]:
    """A second copy of the model, with plain attention: its graph has fewer operators than that of fused attention."""
    try:
        loaded = load_reference(
            checkpoint.directory, checkpoint.kind, trust_remote_code=checkpoint.trust_remote_code, eager=True
        )
    except CheckpointUnsupported:  # an architecture without a choice of attention
        loaded = load_reference(checkpoint.directory, checkpoint.kind, trust_remote_code=checkpoint.trust_remote_code)
    if checkpoint.kind is Kind.CROSS_ENCODER:
        return loaded.model, "text-classification"
    if list(checkpoint.pooling) == ["cls"]:
        loaded[1] = _first_token()
    return loaded, "feature-extraction"


def _first_token() -> Any:
    """CLS pooling for right-padded rows. The library's own searches for the first unpadded token: here, the first."""
    import torch

    class FirstToken(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            features["sentence_embedding"] = features["token_embeddings"][:, 0]
            return features

    return FirstToken()


def _keep_output(model: ModelProto, name: str) -> None:
    kept = [value for value in model.graph.output if value.name == name]
    if not kept:
        raise CheckpointUnsupported(
            f"the exported graph has no output {name!r}: {[v.name for v in model.graph.output]}"
        )
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _check_inputs(model: ModelProto, checkpoint: Checkpoint) -> None:
    unknown = [name for name in input_names(model) if name not in INPUTS]
    if unknown:
        raise CheckpointUnsupported(
            f"{checkpoint.architecture}: the graph reads {', '.join(unknown)}; the server has {', '.join(INPUTS)}"
        )


def _basic(model: ModelProto, workspace: Path) -> ModelProto:
    """Constants folded, no-ops removed: standard operators only."""
    before, after = workspace / "exported.onnx", workspace / "basic.onnx"
    onnx.save(model, before)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(after)
    options.log_severity_level = 3
    ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
    result = onnx.load(after)
    del result.graph.value_info[:]
    return result
