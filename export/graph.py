"""Checkpoint -> plain ONNX graph, through optimum's exporter and ONNX Runtime's basic optimisations.

The result is standard ONNX: int64 [rows, length] inputs, one float32 output, constants as initializers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.runtime.ort import ort

from . import storage
from .checkpoint import cross_encoders, sparse_encoders
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.loading import load_for_tracing
from .checkpoint.pooling import PROMPT_LENGTHS, replace_pooling
from .errors import CheckpointUnsupported

INPUTS = ("input_ids", "attention_mask", "token_type_ids", PROMPT_LENGTHS)
"""What the server can feed."""
OUTPUTS = {
    ModelKind.CROSS_ENCODER: "logits",
    ModelKind.BI_ENCODER: "sentence_embedding",
    ModelKind.SPARSE_ENCODER: "sentence_embedding",
}
_TRACED = "traced"
"""In place of one of optimum's tasks: a module of ours, which traces itself."""


Check = Callable[[ort.InferenceSession], None]
"""Raises where a graph does not give what it should."""


def export_graph(checkpoint: Checkpoint, workspace: Path, check: Check | None = None) -> ModelProto:
    """The graph of the checkpoint, before any rewrite of ours. ``workspace`` is an existing directory for files.

    ``check`` is shown the graph while it is loaded: weights may have gigabytes.

    Raises:
        CheckpointUnsupported: optimum cannot export it, or the graph asks for inputs that the server does not have.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    model, task = _exportable(checkpoint)
    try:
        if task == _TRACED:
            model.write(OUTPUTS[checkpoint.kind], workspace / "model.onnx")
        else:
            onnx_export_from_model(model, output=workspace, task=task, do_validation=False, no_post_process=True)
    except (ValueError, NotImplementedError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointUnsupported(f"{checkpoint.architecture}: optimum cannot export it: {reason}") from error
    del model  # a large one would be in memory next to its graph
    graph = onnx.load(workspace / "model.onnx", load_external_data=False)
    _keep_output(graph, OUTPUTS[checkpoint.kind])
    _check_inputs(graph, checkpoint)
    return _basic(graph, workspace, check)


def output_name(model: ModelProto) -> str:
    """The one output."""
    return str(model.graph.output[0].name)


def input_names(model: ModelProto) -> list[str]:
    """The inputs, in order."""
    return [value.name for value in model.graph.input]


def _exportable(checkpoint: Checkpoint) -> tuple[Any, str]:
    """A second copy of the model, with plain attention: its graph has fewer operators than that of fused attention."""
    loaded = load_for_tracing(
        checkpoint.directory,
        checkpoint.kind,
        trust_remote_code=checkpoint.trust_remote_code,
        adapted=checkpoint.adapted,
    )
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        traceable = cross_encoders.traceable(loaded)
        return (loaded.model, "text-classification") if traceable is None else (traceable, _TRACED)
    from .checkpoint import embedders, routers, static_embeddings  # which need torch

    if checkpoint.kind is ModelKind.SPARSE_ENCODER:
        loaded = routers.documents_of(loaded)
        loaded[1] = sparse_encoders.splade(loaded[1])
        return loaded, "feature-extraction"
    if checkpoint.static:
        return static_embeddings.traceable(loaded), _TRACED
    replace_pooling(loaded)
    traceable = embedders.traceable(loaded, prompt_lengths=checkpoint.rules.prompt_excluded)
    return (loaded, "feature-extraction") if traceable is None else (traceable, _TRACED)


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


def _basic(model: ModelProto, workspace: Path, check: Check | None) -> ModelProto:
    """Constants folded, no-ops removed: standard operators only. Weights outside ``model`` lie in ``workspace``."""
    before, after = workspace / "exported.onnx", workspace / "basic.onnx"
    onnx.save(model, before)
    options = ort.SessionOptions()
    light = storage.size_of(model) > storage.HELD_BYTES
    if light:
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", storage.data_file(after).name
        )
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(storage.EXTERNAL_FROM)
        )
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(after)
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")  # hardly run: weights need no second form
    session = ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"])
    if check is not None:
        check(session)
    del session
    result = storage.load_light(after)
    del result.graph.value_info[:]
    for file in workspace.iterdir():  # what was exported would take the disk twice
        if file not in (after, storage.data_file(after)):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    return result
