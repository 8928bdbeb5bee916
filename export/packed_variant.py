"""Checkpoint's graph -> the packed float16 graph that a GPU runs, checked on a CPU.

Needs no GPU. What is checked is the graph: its packing, its fused operators, and float16 rounding of every weight and
every operator's result, by the operators that a CPU has (`passes.unpacked`). The kernels of a GPU add up in another
order; `benchmarks.gpu` compares those.
"""

from __future__ import annotations

import functools
from pathlib import Path

from onnx import ModelProto

from pairwire.v1 import manifest_pb2

from . import storage
from .checkpoint.checkpoint import Checkpoint
from .config import Precision
from .errors import CheckpointUnsupported
from .graph import input_names, output_name
from .passes import bias_gelu, constant_reshapes, embed_layer_norm, half, packed, skip_layer_norm
from .variant import MadeVariant


def make_packed(plain: ModelProto, checkpoint: Checkpoint, file: Path) -> MadeVariant:
    """Writes the graph. ``plain`` is the exported one, which stays as it is.

    Raises:
        CheckpointUnsupported: it cannot be packed exactly; the sentence says what is in the way.
    """
    if checkpoint.rules.prompt_excluded:
        raise CheckpointUnsupported(
            f"{checkpoint.architecture} has no fp16 variant: its pooling leaves prompts out, which packed graphs do not"
        )
    if checkpoint.static:
        raise CheckpointUnsupported(
            "it has no fp16 variant: looking up rows of a table is no work for a GPU; a CPU does it faster than text"
            " can be tokenised"
        )
    model = ModelProto()
    model.CopyFrom(plain)
    try:
        reports = [
            rewrite(model)
            for rewrite in (
                constant_reshapes.apply,
                skip_layer_norm.apply,
                bias_gelu.apply,
                functools.partial(packed.apply, longest=checkpoint.rules.max_length),
                embed_layer_norm.apply,
                half.apply,
            )
        ]
    except (packed.NotPackable, half.OutOfRange) as error:
        raise CheckpointUnsupported(f"{checkpoint.architecture} has no fp16 variant: {error}") from error
    _check_counts(reports, checkpoint)
    storage.save(model, file)
    return MadeVariant(
        precision=Precision.FP16, file=file, inputs=input_names(model), output=output_name(model), passes=reports
    )


def _check_counts(reports: list[manifest_pb2.PassReport], checkpoint: Checkpoint) -> None:
    """Fused operators are counted, not hoped for: one left out would cost a GPU more than it computes."""
    config = checkpoint.reference[0].config
    layers = int(config.num_hidden_layers)
    counts = {report.name: report.rewritten for report in reports}
    wanted = {packed.NAME: layers, skip_layer_norm.NAME: 2 * layers}
    if "gelu" in (getattr(config, "hidden_act", ""), getattr(config, "activation", "")):
        wanted[bias_gelu.NAME] = layers
    for name, least in wanted.items():
        if counts[name] < least:
            reason = next(report.reason for report in reports if report.name == name)
            raise CheckpointUnsupported(
                f"{checkpoint.architecture} has no fp16 variant: {name} found {counts[name]} places where {layers} "
                f"layers have {least} ({reason or 'no reason known'})"
            )
