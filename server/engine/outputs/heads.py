"""The last step: logits -> scores, always in float32 whatever the graph's precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...runtime.base import Float32Array
from .activation import Activation as Activation


@dataclass(frozen=True, slots=True)
class Head:
    """How a model's logits become scores: ``activation(scale * logit + bias)``."""

    activation: Activation = Activation.IDENTITY
    scale: float = 1.0
    bias: float = 0.0

    def scores(self, logits: Float32Array) -> Float32Array:
        """Scores float32 [rows, labels] of logits float32 [rows, labels]."""
        if self.scale == 1 and self.bias == 0:
            return activate(logits, self.activation)
        return activate(np.float32(self.scale) * logits + np.float32(self.bias), self.activation)

    def with_activation(self, activation: Activation | None) -> Head:
        """The same scale and bias under another activation; itself for None."""
        return self if activation is None else Head(activation, self.scale, self.bias)


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
