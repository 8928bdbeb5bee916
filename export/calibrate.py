"""What activations look like: the smallest and largest value of every channel over the calibration texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from pairwire.server.engine.text import EncodedRows, TextEncoder
from pairwire.server.runtime.base import Float32Array

from .passes.probe import probing_session


@dataclass(frozen=True, slots=True)
class ChannelRange:
    """Smallest and largest value of each channel (last axis) of a tensor, float32 [channels]."""

    low: Float32Array
    high: Float32Array

    @property
    def largest(self) -> Float32Array:
        """Largest magnitude of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def channel_ranges(
    model: ModelProto, tensors: Sequence[str], encoder: TextEncoder, rows: EncodedRows
) -> Mapping[str, ChannelRange]:
    """Ranges of the named tensors, [..., channels] each.

    Every row runs alone and unpadded, so that padding, which no score depends on, widens no range.
    """
    session = probing_session(model, tensors)
    inputs = [node.name for node in session.get_inputs()]
    low: dict[str, Float32Array] = {}
    high: dict[str, Float32Array] = {}
    for index in range(len(rows)):
        values = session.run(list(tensors), _feed(encoder, rows, index, inputs))
        for name, value in zip(tensors, values, strict=True):
            flat = value.reshape(-1, value.shape[-1])
            low[name] = np.minimum(low[name], flat.min(axis=0)) if name in low else flat.min(axis=0)
            high[name] = np.maximum(high[name], flat.max(axis=0)) if name in high else flat.max(axis=0)
    return {name: ChannelRange(low[name], high[name]) for name in tensors}


def _feed(
    encoder: TextEncoder, rows: EncodedRows, index: int, inputs: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    batch = encoder.assemble([(rows, index)], int(rows.lengths[index]))
    values = {
        "input_ids": batch.input_ids.astype(np.int64),
        "attention_mask": np.ones_like(batch.input_ids, dtype=np.int64),
        "token_type_ids": batch.token_type_ids.astype(np.int64),
    }
    return {name: values[name] for name in inputs}
