"""Cross-encoders of several modules: a Transformer, then Pooling, Dense and the like, up to the feature "scores"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CheckpointUnsupported
from . import decoders, embedders
from .pooling import MODES, right_padded
from .tracing import Chain

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


def chain(modules: list[Any], inputs: Sequence[str]) -> Chain:
    """input_ids, attention_mask [rows, length] and what else the Transformer reads -> scores [rows, labels]."""
    first, pooling, *rest = modules
    states = embedders.States(first.model) if decoders.is_decoder(first.model) else first
    return Chain([states, right_padded(_modes(pooling), include_prompt=True), *rest], inputs, _SCORES)


def _modes(pooling: Any) -> list[str]:
    return [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)


def _check_pooling(pooling: Any) -> None:
    unknown = [mode for mode in _modes(pooling) if mode not in MODES]
    if unknown:
        raise CheckpointUnsupported(f"pooling {', '.join(unknown)} is not exported; {', '.join(MODES)} are")
    if not pooling.include_prompt:
        raise CheckpointUnsupported("a cross-encoder whose pooling leaves prompts out (include_prompt is false)")
