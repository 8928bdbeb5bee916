"""How much each layer alone loses in int8: graphs that have nothing else quantised against the float32 one.

The texts are of the topics that parity is measured on, so the calibration has not seen them. What is measured depends
on the sizes of the model alone, never on a clock: the same export finds the same layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import ModelProto

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.runtime.base import Float32Array

from ..checkpoint.checkpoint import Checkpoint, encode
from ..graph import output_name
from ..texts import BUILT_IN, Input, Texts, held_out_texts
from ..vocabulary import servable
from .calibrate import observe
from .findings import LayerFinding

MOST_LAYERS = 12
"""Layers that are measured; of a deeper model this many at even distances, the first and the last among them."""
FEWEST_TEXTS, MOST_TEXTS = 6, 24
WORK = 4e9
"""Weights times graphs times texts, above which texts become fewer."""


def sampled(layers: Iterable[str]) -> list[str]:
    """The layers that are measured, in their order."""
    every = list(dict.fromkeys(layers))
    at = np.linspace(0, len(every) - 1, min(MOST_LAYERS, len(every))).round().astype(int)
    return [every[index] for index in at]


def measure_layers(
    model: ModelProto, checkpoint: Checkpoint, graphs: Iterable[tuple[str, ModelProto]], *, count: int, weights: int
) -> list[LayerFinding]:
    """What each of the ``count`` graphs is off from ``model``, which has this many weights; one is held at a time."""
    most = int(np.clip(WORK / (weights * (count + 1)), FEWEST_TEXTS, MOST_TEXTS))
    texts = servable(checkpoint, Texts(held_out_texts(checkpoint.kind, most), BUILT_IN)).inputs
    expected = _results(model, checkpoint, texts)
    findings = []
    for name, graph in graphs:
        off = np.abs(_results(graph, checkpoint, texts) - expected)
        findings.append(LayerFinding(name, float(off.mean()), float(off.max())))
    return findings


def _results(model: ModelProto, checkpoint: Checkpoint, texts: Sequence[Input]) -> Float32Array:
    """[texts, columns] scores or vectors, each text alone and unpadded."""
    encoder = checkpoint.text_encoder()
    cross = checkpoint.kind is ModelKind.CROSS_ENCODER
    columns = len(checkpoint.labels) if cross else checkpoint.dimensions
    name = output_name(model)
    outputs = observe(model, {name: columns}, encoder, encode(encoder, texts, checkpoint))[name].sample
    return checkpoint.head.scores(outputs) if cross else outputs
