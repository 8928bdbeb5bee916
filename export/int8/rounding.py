"""float32 weights -> int8, one scale a column.

Rounding to the nearest step errs by the same amount for every input, and worst where an input is always large: the
first token of a text meets the same error in every text. `round_weights` rounds row after row and takes each row's
error back with the rows that are not rounded yet, so that products of inputs as they are seen come out right (GPTQ,
Frantar et al. 2022).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pairwire.server.runtime.base import Float32Array

MOST_INPUTS = 4608
"""Rows up to which errors are taken back: the work grows with their cube (10 s for this many)."""
DAMPING = 0.01
"""Share of the mean square of an input that is added to that of every input: what was not seen must not go astray."""
SAMPLES = 2
"""Samples for each input from which errors are taken back; fewer say too little of how inputs go together."""
_BLOCK = 128
_ROWS = 8192

Int8Array = npt.NDArray[np.int8]


def quantize_weights(weights: Float32Array) -> tuple[Int8Array, Float32Array]:
    """int8 [inputs, outputs] and float32 scales [outputs], symmetric: weights = int8 * scales, up to half a step."""
    scales = _scales(weights)
    return np.clip(np.round(weights / scales), -127, 127).astype(np.int8), scales


def quantize_rows(table: Float32Array) -> tuple[Int8Array, Float32Array]:
    """int8 [rows, columns] and float32 scales [rows]: table = int8 * scales[:, None], up to half a step.

    Made part by part: a vocabulary's table may have a gigabyte.
    """
    rounded, scales = np.empty(table.shape, np.int8), np.empty(len(table), np.float32)
    for start in range(0, len(table), _ROWS):
        part = slice(start, start + _ROWS)
        small, scales[part] = quantize_weights(np.ascontiguousarray(table[part].T))
        rounded[part] = small.T
    return rounded, scales


def round_weights(weights: Float32Array, inputs: Float32Array) -> tuple[Int8Array, Float32Array]:
    """The same for ``inputs`` [samples, inputs] as they will be multiplied: ``inputs @ weights`` errs less."""
    if not takes_back(len(weights), inputs):
        return quantize_weights(weights)
    scales = _scales(weights)
    squares = (inputs.T @ inputs).astype(np.float64)
    squares[np.diag_indices_from(squares)] += DAMPING * np.diag(squares).mean()
    order = np.argsort(-np.diag(squares), kind="stable")
    # Row i of the factor says how an error in input i is best taken back by those after it.
    factor = np.linalg.cholesky(np.linalg.inv(squares[np.ix_(order, order)])).T.astype(np.float32)
    rounded = np.empty(weights.shape, np.int8)
    rounded[order] = _in_order(weights[order], factor, scales)
    return rounded, scales


def takes_back(channels: int, inputs: Float32Array) -> bool:
    """Whether `round_weights` takes errors back for these inputs of ``channels``, or rounds to the nearest step."""
    return len(inputs) >= SAMPLES * channels and channels <= MOST_INPUTS and bool(inputs.any())


def _in_order(weights: Float32Array, factor: Float32Array, scales: Float32Array) -> Int8Array:
    """``factor`` is upper triangular; ``weights`` is changed."""
    rounded = np.empty(weights.shape, np.int8)
    for start in range(0, len(weights), _BLOCK):
        end = min(start + _BLOCK, len(weights))
        errors = np.empty((end - start, weights.shape[1]), np.float32)
        for row in range(start, end):
            rounded[row] = np.clip(np.round(weights[row] / scales), -127, 127)
            errors[row - start] = (weights[row] - rounded[row] * scales) / factor[row, row]
            weights[row + 1 : end] -= np.outer(factor[row, row + 1 : end], errors[row - start])
        weights[end:] -= factor[start:end, end:].T @ errors
    return rounded


def _scales(weights: Float32Array) -> Float32Array:
    return np.asarray(np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127, dtype=np.float32)
