"""Logits of natural language inference -> probabilities of candidate labels, as transformers' pipeline makes them.

Source: `ZeroShotClassificationPipeline` in transformers' src/transformers/pipelines/zero_shot_classification.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...runtime.base import Float32Array
from .heads import Activation, activate


@dataclass(frozen=True, slots=True)
class NliLogits:
    """Which logits of a model are read."""

    entailment: int
    contradiction: int
    """What entailment is compared with where each label is judged alone: the first logit, or the last where entailment
    is the first."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> NliLogits | None:
        """Those of a model with these labels; None where no label is called entailment, or there is no other."""
        found = next((at for at, label in enumerate(labels) if label.lower().startswith("entail")), None)
        if found is None or len(labels) < 2:
            return None
        return cls(found, len(labels) - 1 if found == 0 else 0)

    def probabilities(self, logits: Float32Array, *, multi_label: bool) -> Float32Array:
        """float32 [texts, candidates] of float32 logits [texts, candidates, labels].

        The candidates of a text add up to 1; with ``multi_label``, or where there is one, each is judged by itself.
        """
        texts, candidates, labels = logits.shape
        if multi_label or candidates == 1:
            alone = logits.reshape(-1, labels)[:, [self.contradiction, self.entailment]]
            return activate(alone, Activation.SOFTMAX)[:, 1].reshape(texts, candidates)
        return activate(logits[:, :, self.entailment], Activation.SOFTMAX)
