"""Cross-encoders of several modules: a Transformer, then Pooling, Dense and the like, up to the feature "scores"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import CheckpointUnsupported
from . import decoders
from .pooling import MODES, right_padded

ALLOWED = ("Dense", "Dropout", "LayerNorm", "Normalize", "Pooling")
"""What may follow the Transformer: each treats rows alone."""
_SCORES = "scores"


def check(modules: list[Any]) -> None:
    """Raises what keeps a chain of modules from being exported.

    Raises:
        CheckpointUnsupported: a module that is not known, or no scores at the end.
    """
    first, *rest = modules
    names = [type(module).__name__ for module in modules]
    for module in rest:
        if not type(module).__module__.startswith("sentence_transformers.") or type(module).__name__ not in ALLOWED:
            raise CheckpointUnsupported(
                f"a cross-encoder with a module {type(module).__name__}; {', '.join(ALLOWED)} are exported"
            )
    if first.module_output_name != "token_embeddings" or names.count("Pooling") != 1 or names[1] != "Pooling":
        raise CheckpointUnsupported(f"modules {', '.join(names)}: expected a Transformer of token vectors and Pooling")
    if getattr(rest[-1], "module_output_name", "") != _SCORES:
        raise CheckpointUnsupported(f"modules {', '.join(names)}: expected a Dense that gives the scores at the end")
    _check_pooling(rest[0])
    if decoders.is_decoder(first.model):
        decoders.check(first.model)


class Chain(torch.nn.Module):
    """input_ids, attention_mask [rows, length] and what else the Transformer reads -> scores [rows, labels]."""

    def __init__(self, modules: list[Any], inputs: Sequence[str]) -> None:
        """``inputs`` are the names of what `forward` is given, in order."""
        super().__init__()
        first, pooling, *rest = modules
        self._inputs = inputs
        self.first = _DecoderStates(first.model) if decoders.is_decoder(first.model) else first
        self.pooling = right_padded(_modes(pooling), include_prompt=True)
        self.rest = torch.nn.ModuleList(rest)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Rows are padded on the right."""
        features = self.pooling(self.first(dict(zip(self._inputs, inputs, strict=True))))
        for module in self.rest:
            features = module(features)
        return torch.as_tensor(features[_SCORES])


class _DecoderStates(torch.nn.Module):
    """The Transformer of a chain that reads from left to right."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = decoders.Backbone(model)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return features | {"token_embeddings": self.backbone(features["input_ids"])}


def _modes(pooling: Any) -> list[str]:
    return [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)


def _check_pooling(pooling: Any) -> None:
    unknown = [mode for mode in _modes(pooling) if mode not in MODES]
    if unknown:
        raise CheckpointUnsupported(f"pooling {', '.join(unknown)} is not exported; {', '.join(MODES)} are")
    if not pooling.include_prompt:
        raise CheckpointUnsupported("a cross-encoder whose pooling leaves prompts out (include_prompt is false)")
