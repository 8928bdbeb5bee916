"""What turns logits into scores, by name; no numpy, so that options can be read without it."""

from __future__ import annotations

from enum import Enum


class Activation(Enum):
    """What turns logits into scores."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
