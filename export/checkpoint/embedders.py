"""Bi-encoders that optimum does not export as they are: those that leave prompts out of pooling, and decoders."""

from __future__ import annotations

from typing import Any

import torch

from . import decoders
from .pooling import PROMPT_LENGTHS
from .tracing import Traceable, patched

_IDS, _MASK = "input_ids", "attention_mask"
_TOKENS, _VECTOR = "token_embeddings", "sentence_embedding"


class Embedder(torch.nn.Module):
    """A ``SentenceTransformer`` whose pooling can be traced: input_ids, attention_mask [rows, length] -> [rows, n]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.first = _States(model[0].model) if decoders.is_decoder(model[0].model) else model[0]
        self.rest = torch.nn.ModuleList(list(model)[1:])

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, prompt_lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``prompt_lengths`` [rows] where pooling leaves this many tokens out. Rows are padded on the right."""
        features = self.first({_IDS: input_ids, _MASK: attention_mask})
        if prompt_lengths is not None:
            features[PROMPT_LENGTHS] = prompt_lengths
        for module in self.rest:
            features = module(features)
        return torch.as_tensor(features[_VECTOR])


class _States(torch.nn.Module):
    """The Transformer of a decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = decoders.Backbone(model)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return features | {_TOKENS: self.backbone(features[_IDS])}


def traceable(model: Any, *, prompt_lengths: bool) -> Traceable | None:
    """A ``SentenceTransformer`` after `pooling.replace_pooling`; None where optimum exports it as it is.

    Raises:
        CheckpointUnsupported: a decoder that is not known to be exact here.
    """
    transformer = model[0].model
    inputs = [_IDS, _MASK, *([PROMPT_LENGTHS] if prompt_lengths else [])]
    if decoders.is_decoder(transformer):
        return Traceable(Embedder(model), inputs)
    return Traceable(Embedder(model), inputs, patched(transformer)[0]) if prompt_lengths else None
