"""Bi-encoders that optimum does not export as they are: those that leave prompts out of pooling, and decoders."""

from __future__ import annotations

from typing import Any

import torch

from . import decoders
from .pooling import PROMPT_LENGTHS
from .tracing import Chain, Traceable, inputs_of, prepared
from .ways import Tracer, Way

_IDS, _MASK = "input_ids", "attention_mask"
_TOKENS, _VECTOR = "token_embeddings", "sentence_embedding"


class States(torch.nn.Module):
    """The Transformer of a decoder: the feature input_ids -> token_embeddings."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = decoders.Backbone(model)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rows are padded on the right."""
        return features | {_TOKENS: self.backbone(features[_IDS])}


def traceable(model: Any, way: Way, *, prompt_lengths: bool) -> Traceable | None:
    """A ``SentenceTransformer`` after `pooling.replace_pooling`; None where optimum exports it as it is.

    Raises:
        CheckpointUnsupported: a decoder that is not known to be exact here.
    """
    first, *rest = model
    prompts = [PROMPT_LENGTHS] if prompt_lengths else []
    if decoders.is_decoder(first.model):
        inputs = (_IDS, _MASK, *prompts)
        return Traceable(Chain([States(first.model), *rest], inputs, _VECTOR), inputs)
    if way.tracer is Tracer.OPTIMUM and not prompt_lengths:
        return None
    inputs = (*inputs_of(first), *prompts)
    return Traceable(Chain([first, *rest], inputs, _VECTOR), inputs, prepared(first.model, way))
