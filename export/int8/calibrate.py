"""What activations look like on the calibration texts: the range of every channel, and some tokens to try codes on.

Everything is kept twice, of the texts with even numbers and of those with odd ones: a code that is made for one half is
tried on the other, as it will meet texts that nobody calibrated with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder
from pairwire.server.runtime.base import Float32Array

from ..passes.probe import probing_session
from ..progress import Advance, silent

SAMPLE_TOKENS = 3000
"""Tokens of a tensor that are kept, both halves together."""
SAMPLE_BYTES = 512 * 2**20
"""Most memory that all samples may take; large models keep fewer tokens."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor [..., channels] over the calibration texts."""

    low: Float32Array
    """[2, channels] smallest values, of each half of the texts."""
    high: Float32Array
    """[2, channels] largest values."""
    samples: tuple[Float32Array, Float32Array]
    """[tokens, channels] of each half, evenly spaced over every text."""

    @property
    def sample(self) -> Float32Array:
        """[tokens, channels] of both halves."""
        return np.concatenate(self.samples)

    @property
    def largest(self) -> Float32Array:
        """[channels] largest absolute values."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)).max(axis=0))

    def ordered(self, order: npt.NDArray[np.int64]) -> Seen:
        """The same with channels in another order."""
        first, second = self.samples
        return Seen(self.low[:, order], self.high[:, order], (first[:, order], second[:, order]))


def observe(
    model: ModelProto,
    tensors: Mapping[str, int],
    encoder: TextEncoder,
    rows: EncodedRows,
    advance: Advance = silent,
) -> Mapping[str, Seen]:
    """Ranges and samples of the named tensors, [..., channels] each, which have this many channels.

    Every row runs alone and unpadded, so that padding, which no score depends on, widens no range. A tensor that has
    no tokens in any row (an expert that is never asked) is left out.
    """
    session = probing_session(model, list(tensors))
    inputs = [node.name for node in session.get_inputs()]
    share = _share(tensors, int(np.sum(rows.lengths)))
    parts: dict[str, tuple[list[Float32Array], list[Float32Array]]] = {name: ([], []) for name in tensors}
    low = {name: np.full((2, size), np.inf, np.float32) for name, size in tensors.items()}
    high = {name: np.full((2, size), -np.inf, np.float32) for name, size in tensors.items()}
    for index in range(len(rows)):
        half = index % 2
        values = session.run(list(tensors), _feed(encoder, rows, index, inputs))
        for name, value in zip(tensors, values, strict=True):
            flat = np.asarray(value, dtype=np.float32).reshape(-1, value.shape[-1])
            if not len(flat):
                continue
            low[name][half] = np.minimum(low[name][half], flat.min(axis=0))
            high[name][half] = np.maximum(high[name][half], flat.max(axis=0))
            parts[name][half].append(flat[_evenly(len(flat), share)])
        advance(float(rows.lengths[: index + 1].sum() / rows.lengths.sum()))
    found = {}
    for name in tensors:
        halves = [half if parts[name][half] else 1 - half for half in (0, 1)]
        if parts[name][halves[0]]:
            first, second = (np.concatenate(parts[name][half]) for half in halves)
            found[name] = Seen(low[name][halves], high[name][halves], (first, second))
    return found


def _share(tensors: Mapping[str, int], tokens: int) -> float:
    """The share of all tokens that is kept."""
    most = min(SAMPLE_TOKENS, SAMPLE_BYTES // (4 * max(1, sum(tensors.values()))))
    return max(64, most) / max(1, tokens)


def _evenly(count: int, share: float) -> npt.NDArray[np.int64]:
    """Indices of that share of ``count`` tokens, the first always: it is the one that most models read."""
    kept = min(count, max(1, round(count * share)))
    return np.arange(kept) * count // kept


def _feed(
    encoder: TextEncoder, rows: EncodedRows, index: int, inputs: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    batch = encoder.assemble([(rows, index)], int(rows.lengths[index]))
    values = {
        "input_ids": batch.input_ids.astype(np.int64),
        "attention_mask": np.ones_like(batch.input_ids, dtype=np.int64),
        "token_type_ids": batch.token_type_ids.astype(np.int64),
        "prompt_lengths": batch.prompt_lengths.astype(np.int64),
    }
    return {name: values[name] for name in inputs}
