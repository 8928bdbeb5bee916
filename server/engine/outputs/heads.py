"""The last step: logits -> scores, always in float32 whatever the graph's precision."""

from __future__ import annotations

from enum import Enum

import numpy as np

from ...runtime.base import Float32Array


class Activation(Enum):
    """What turns logits into scores."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


def activate(logits: Float32Array, activation: Activation) -> Float32Array:
    """Scores float32 [rows, labels] of logits float32 [rows, labels].

    Both exponentials are of non-positive numbers, so nothing overflows however large a logit is.
    """
    logits = np.asarray(logits, dtype=np.float32)
    if activation is Activation.IDENTITY:
        return logits
    if activation is Activation.SIGMOID:
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)
