"""Checkpoint -> plain ONNX graph, by the first way that leads to a right one, and ONNX Runtime's basic optimisations.

The result is standard ONNX: int64 [rows, length] inputs, one float32 output, constants as initializers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.reasons import is_of_the_machine, reason_of
from pairwire.server.runtime.ort import ort

from . import storage
from .checkpoint import cross_encoders, sparse_encoders
from .checkpoint.checkpoint import Checkpoint
from .checkpoint.loading import load_for_tracing
from .checkpoint.pooling import PROMPT_LENGTHS, replace_pooling
from .errors import CheckpointUnsupported, ConsentMissing, ExportError, WeightsInvalid

if TYPE_CHECKING:
    from .checkpoint.ways import Way

INPUTS = ("input_ids", "attention_mask", "token_type_ids", PROMPT_LENGTHS)
"""What the server can feed."""
OUTPUTS = {
    ModelKind.CROSS_ENCODER: "logits",
    ModelKind.BI_ENCODER: "sentence_embedding",
    ModelKind.SPARSE_ENCODER: "sentence_embedding",
}


Check = Callable[[ort.InferenceSession], None]
"""Raises where a graph does not give what it should."""


def export_graph(checkpoint: Checkpoint, workspace: Path, check: Check | None = None) -> ModelProto:
    """The graph of the checkpoint, before any rewrite of ours. ``workspace`` is an existing directory for files.

    ``check`` is shown the graph while it is loaded: weights may have gigabytes. The first way (`checkpoint.ways`) whose
    graph passes it is taken; `made_by` says which one that was.

    Raises:
        CheckpointUnsupported: no way leads to a graph that is right; the sentence says what was in each of them.
    """
    from .checkpoint.ways import Tracer, Way, ways  # which need torch

    refusals: dict[str, list[str]] = {}
    for way in (Way(Tracer.SCRIPT),) if checkpoint.static else ways(checkpoint.reference[0].model):
        try:
            graph = _by(way, checkpoint, workspace, check)
        except (ConsentMissing, WeightsInvalid):
            raise
        except CheckpointUnsupported as error:
            refusals.setdefault(str(error), []).append(str(way))
            _clear(workspace)
        else:
            graph.producer_name = str(way)
            return graph
    if len(refusals) == 1:
        raise CheckpointUnsupported(next(iter(refusals)))
    reasons = "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in refusals.items())
    raise CheckpointUnsupported(f"{checkpoint.architecture} cannot be traced: {reasons}")


def made_by(model: ModelProto) -> str:
    """What wrote a graph of `export_graph`: optimum, or the tracer of torch and the attention that it traced."""
    return str(model.producer_name)


def output_name(model: ModelProto) -> str:
    """The one output."""
    return str(model.graph.output[0].name)


def input_names(model: ModelProto) -> list[str]:
    """The inputs, in order."""
    return [value.name for value in model.graph.input]


def _by(way: Way, checkpoint: Checkpoint, workspace: Path, check: Check | None) -> ModelProto:
    """The graph that one way leads to.

    Raises:
        CheckpointUnsupported: it cannot be written, asks for inputs that the server does not have, or fails the check.
    """
    file = workspace / "model.onnx"
    model, task = _exportable(checkpoint, way)
    try:
        if task is None:
            model.write(
                OUTPUTS[checkpoint.kind], file, way.tracer, checkpoint.rules.vocab_size, checkpoint.rules.max_length
            )
        else:
            from optimum.exporters.onnx import onnx_export_from_model

            onnx_export_from_model(model, output=workspace, task=task, do_validation=False, no_post_process=True)
    except Exception as error:  # a list of types cannot cover what tracers and code of checkpoints raise
        if isinstance(error, ExportError) or is_of_the_machine(error):
            raise
        raise CheckpointUnsupported(reason_of(error)) from error
    del model  # a large one would be in memory next to its graph
    graph = onnx.load(file, load_external_data=False)
    _forbid_zeros(graph)
    _keep_output(graph, OUTPUTS[checkpoint.kind])
    _check_inputs(graph, checkpoint)
    return _basic(graph, workspace, check)


def _exportable(checkpoint: Checkpoint, way: Way) -> tuple[Any, str | None]:
    """A second copy of the model, and optimum's task; None for a module of ours, which traces itself."""
    loaded = load_for_tracing(
        checkpoint.directory,
        checkpoint.kind,
        trust_remote_code=checkpoint.trust_remote_code,
        adapted=checkpoint.adapted,
        attention=way.attention,
    )
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        traceable = cross_encoders.traceable(loaded, way)
        return (loaded.model, "text-classification") if traceable is None else (traceable, None)
    from .checkpoint import embedders, routers, static_embeddings  # which need torch

    if checkpoint.kind is ModelKind.SPARSE_ENCODER:
        loaded = routers.documents_of(loaded)
        loaded[1] = sparse_encoders.splade(loaded[1])
    elif checkpoint.static:
        return static_embeddings.traceable(loaded), None
    else:
        replace_pooling(loaded)
    traceable = embedders.traceable(loaded, way, prompt_lengths=checkpoint.rules.prompt_excluded)
    return (loaded, "feature-extraction") if traceable is None else (traceable, None)


def _forbid_zeros(model: ModelProto) -> None:
    """Takes from every Reshape the word that 0 is a length: it copies a dim, and no batch of ours is empty."""
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole if not uses_external_data(tensor)}
    for node in model.graph.node:
        if node.op_type == "Reshape" and not (node.input[1] in fixed and 0 in fixed[node.input[1]]):
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


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
    _clear(workspace, after, storage.data_file(after))  # what was exported would take the disk twice
    return result


def _clear(workspace: Path, *kept: Path) -> None:
    for file in workspace.iterdir():
        if file not in kept:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
